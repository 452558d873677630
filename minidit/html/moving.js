{  // the moving parts of the story: laws.js computes, this draws
const clouds = MOVING.clouds, part = name => document.getElementById(name);
const colour = name => getComputedStyle(document.body).getPropertyValue(name);
const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
const redraws = [];
function wake(name, draw) {  // shows the controls of a part and draws it again whenever one of them moves
  const root = part(name);
  if (!root) return;
  const at = Object.fromEntries([...root.querySelectorAll('[name]')].map(e => [e.name, e]));
  root.querySelector('.still').hidden = true;
  root.querySelector('.live').hidden = false;
  const again = () => {
    for (const e of root.querySelectorAll('input')) e.nextElementSibling.textContent = e.value;
    draw(root, at);
  };
  for (const e of root.querySelectorAll('input, select')) e.addEventListener('input', again);
  redraws.push(again);
  if (at.play) play(root, at, again);
  again();
}
function play(root, at, again) {  // moves the slider "at" by itself, while the part can be seen
  const range = at.at, least = +range.min, most = +range.max;
  let playing = !calm, seen = false, before = 0, place = least;
  const name = () => { at.play.textContent = playing ? 'Pause' : 'Play'; };
  if (calm) { place = most; range.value = most; }
  at.play.addEventListener('click', () => { playing = !playing; if (playing && +range.value >= most) place = least; name(); });
  range.addEventListener('input', () => { playing = false; place = +range.value; name(); });
  new IntersectionObserver(entries => { seen = entries[entries.length - 1].isIntersecting; }).observe(root);
  function tick(now) {
    if (playing && seen) {
      place += Math.min(now - before, 100) / 6000 * (most - least);  // six seconds from end to end, and a rest there
      if (place > least + 1.25 * (most - least)) place = least;
      const value = String(Math.round(Math.min(place, most)));
      if (value !== range.value) { range.value = value; again(); }
    }
    before = now;
    requestAnimationFrame(tick);
  }
  name();
  requestAnimationFrame(tick);
}
// -------------------------------------------------------------------------------------------------- drawing
function fresh(canvas) {
  const pen = canvas.getContext('2d');
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.globalAlpha = 1; pen.lineWidth = 1.5; pen.font = '14px system-ui, sans-serif';
  return pen;
}
function dots(canvas, x, { scale = 1, ink = '--ink', kinds = false, ring = null, trails = [], name = '' } = {}) {
  const pen = fresh(canvas), half = canvas.width / 2, place = v => half + v * scale / MOVING.reach * half;
  const down = v => half - v * scale / MOVING.reach * half;
  clouds.means.forEach(([a, b], k) => {  // the data, as faint discs of two standard deviations
    const disc = r => { pen.beginPath(); pen.arc(half + a / MOVING.reach * half, half - b / MOVING.reach * half, r * clouds.stds[k] / MOVING.reach * half, 0, 7); };
    pen.fillStyle = colour(kinds ? clouds.classes[k] ? '--c0' : '--c1' : '--muted'); pen.globalAlpha = .16;
    disc(2); pen.fill();
    if (k === ring) { pen.globalAlpha = .8; pen.strokeStyle = colour('--ink'); disc(2.5); pen.stroke(); }
  });
  pen.globalAlpha = .5; pen.strokeStyle = colour('--c3');
  for (let p = 0; p < 8 && trails.length > 1; p++) {
    pen.beginPath();
    trails.forEach(([z, s]) => pen.lineTo(half + z[2 * p] * s / MOVING.reach * half, half - z[2 * p + 1] * s / MOVING.reach * half));
    pen.stroke();
  }
  pen.globalAlpha = .75; pen.fillStyle = colour(kinds ? '--c1' : ink);
  for (let i = 0; i < x.length; i += 2) {
    pen.fillStyle = colour(trails.length && i < 16 ? '--c3' : kinds ? '--c1' : ink);
    pen.beginPath(); pen.arc(place(x[i]), down(x[i + 1]), 2.6, 0, 7); pen.fill();
  }
  pen.globalAlpha = 1; pen.fillStyle = colour('--muted'); pen.fillText(name, 8, 20);
}
function picture(canvas, left, right) {  // one or two pictures of numbers in -1..1, side by side
  const n = MOVING.side, sheet = document.createElement('canvas'), both = right ? 2 : 1;
  sheet.width = n * both; sheet.height = n;
  const pen = sheet.getContext('2d'), image = pen.createImageData(n * both, n);
  [left, right].slice(0, both).forEach((values, side) => values.forEach((v, i) => {
    const byte = Math.round((Math.min(1, Math.max(-1, v)) + 1) / 2 * 255), at = 4 * (Math.floor(i / n) * n * both + side * n + i % n);
    image.data.set([byte, byte, byte, 255], at);
  }));
  pen.putImageData(image, 0, 0);
  const big = fresh(canvas);
  big.imageSmoothingEnabled = false;
  big.drawImage(sheet, 0, both > 1 ? canvas.height / 4 : 0, canvas.width, canvas.height / both);
}
const says = (root, text) => { root.querySelector('.says').textContent = text; };
const short = v => v === 0 ? '0' : v === Infinity ? '∞' : Math.abs(v) >= .001 && Math.abs(v) < 1e4 ? String(+v.toPrecision(3)) : v.toExponential(1);
// -------------------------------------------------------------------------------------------------- the parts
const cosine = LAWS.cosine(), bytes = Uint8Array.from(atob(MOVING.picture), c => c.charCodeAt(0));
const clean = Float64Array.from(bytes, b => b / 127.5 - 1), grain = LAWS.normal(1, clean.length, 0);
wake('slider', (root, at) => {
  const [a, s] = [Math.sqrt(cosine[+at.t.value]), Math.sqrt(1 - cosine[+at.t.value])];
  const [mixed, alone] = root.querySelectorAll('canvas');
  picture(mixed, clean.map((x, i) => a * x + s * grain[i]));
  picture(alone, clean.map(x => (a * (x + 1)) - 1), grain.map(z => s * z));
  says(root, `x = α × picture + σ × noise with α = ${short(a)}, σ = ${short(s)}, SNR = ${short((a / s) ** 2)}`);
});
const SCHEDULES = [['linear (DDPM)', LAWS.linear()], ['scaled linear (Stable Diffusion)', LAWS.scaledLinear()], ['cosine (here)', cosine],
  ['scaled linear, zero at the end', LAWS.zeroTerminal(LAWS.scaledLinear())],
  ['straight path (rectified flow)', [...Array(1001).keys()].map(t => (1 - t / 1000) ** 2 / ((1 - t / 1000) ** 2 + (t / 1000) ** 2))]];
wake('schedules', (root, at) => {
  const canvas = root.querySelector('canvas'), pen = fresh(canvas), t = +at.t.value, log = at.show.value === 'snr';
  const left = 46, bottom = canvas.height - 26, width = canvas.width - left - 12, height = bottom - 12;
  const value = bar => log ? (Math.max(-4, Math.min(4, Math.log10(bar / (1 - bar)))) + 4) / 8 : bar;
  pen.fillStyle = pen.strokeStyle = colour('--muted');
  for (const [mark, text] of log ? [[0, '10⁻⁴'], [.5, '1'], [1, '10⁴']] : [[0, '0'], [.5, '0.5'], [1, '1']]) {
    pen.globalAlpha = .35; pen.beginPath(); pen.moveTo(left, bottom - mark * height); pen.lineTo(left + width, bottom - mark * height); pen.stroke();
    pen.globalAlpha = 1; pen.fillText(text, 4, bottom - mark * height + 5);
  }
  pen.fillText('t = 0, clean picture', left, canvas.height - 6);
  const last = 't = 1000, pure noise'; pen.fillText(last, left + width - pen.measureText(last).width, canvas.height - 6);
  const half = log ? 'SNR = 1' : 'as much picture as noise: SNR = 1', middle = bottom - height / 2;
  pen.fillStyle = pen.strokeStyle = colour('--ink'); pen.setLineDash([4, 4]); pen.lineWidth = 1; pen.beginPath(); pen.moveTo(left, middle);
  pen.lineTo(left + width, middle); pen.stroke(); pen.fillText(half, left + width - pen.measureText(half).width, middle - 7);
  SCHEDULES.forEach(([, bar], k) => {
    pen.strokeStyle = colour(`--c${k}`); pen.setLineDash(k % 2 ? [6, 4] : []); pen.lineWidth = bar === cosine ? 4 : 2; pen.beginPath();
    bar.forEach((b, i) => { if (i) pen.lineTo(left + i / 1000 * width, bottom - value(b) * height); });
    pen.stroke();
  });
  pen.setLineDash([]); pen.strokeStyle = colour('--ink'); pen.lineWidth = 1; pen.beginPath();
  pen.moveTo(left + t / 1000 * width, 8); pen.lineTo(left + t / 1000 * width, bottom); pen.stroke();
  root.querySelector('.legend').replaceChildren(...SCHEDULES.map(([name, bar], k) => {
    const item = document.createElement('li'), mark = document.createElement('b');
    mark.style.background = `var(--c${k})`;
    item.append(mark, `${name}: ${log ? 'SNR ' + short(bar[t] / (1 - bar[t])) : 'share ' + short(bar[t])}`);
    return item;
  }));
  says(root, `t = ${t}`);
});
const WHOSE = ['used here', 'Stable Diffusion 1', 'both ends', 'the DDIM paper', 'OpenAI', 'OpenAI'];
wake('spacings', (root, at) => {
  const canvas = root.querySelector('canvas'), pen = fresh(canvas), n = +at.n.value, T = 1000;
  const rows = [['trailing', LAWS.trailing(T, n)], ['leading', LAWS.leading(T, n)], ['linspace', LAWS.linspace(T, n)],
    ['quadratic', LAWS.quadratic(T, n)], ['three sections', LAWS.sections(T, [0, 1, 2].map(i => Math.max(1, Math.floor((n + i) / 3))))],
    ['integer stride', LAWS.stride(T, n)]];
  const left = 124, width = canvas.width - left - 12, tall = (canvas.height - 34) / rows.length;
  rows.forEach(([name, rungs], k) => {
    const y = 8 + (k + .5) * tall;
    pen.globalAlpha = 1; pen.fillStyle = colour('--ink'); pen.fillText(name, 2, y + 1);
    pen.fillStyle = colour('--muted'); pen.font = '12px system-ui, sans-serif'; pen.fillText(WHOSE[k], 2, y + 16); pen.font = '14px system-ui, sans-serif';
    pen.strokeStyle = colour('--line'); pen.beginPath(); pen.moveTo(left, y); pen.lineTo(left + width, y); pen.stroke();
    for (const r of rungs) {
      pen.fillStyle = colour(r === T ? '--c1' : '--c0');
      pen.beginPath(); pen.arc(left + r / T * width, y, 4, 0, 7); pen.fill();
    }
    if (rungs[rungs.length - 1] !== T) {  // pure noise, which is not visited
      pen.strokeStyle = colour('--c1'); pen.beginPath(); pen.arc(left + width, y, 4, 0, 7); pen.stroke();
    }
    if (!rungs.length) { pen.fillStyle = colour('--muted'); pen.fillText(`no stride gives ${n} rungs`, left + 8, y - 4); }
  });
  pen.fillStyle = colour('--muted'); pen.fillText('t = 0, data', left, canvas.height - 6);
  const noisy = 't = 1000, pure noise'; pen.fillText(noisy, left + width - pen.measureText(noisy).width, canvas.height - 6);
  const way = '← the walk'; pen.fillText(way, left + (width - pen.measureText(way).width) / 2, canvas.height - 6);
  const missing = rows.filter(([, r]) => r.length && r[r.length - 1] < T).map(([name, r]) => `${name} begins at ${r[r.length - 1]}`);
  says(root, missing.length ? `Pure noise is at 1000 (orange, hollow where it is not visited), but ${missing.join(', ')}.` : 'All of them begin at 1000, pure noise.');
});
const guess = x => (y, level) => LAWS.denoise(y, level, clouds, x);
const best = (y, level) => LAWS.denoise(y, level, clouds), begin = LAWS.normal(MOVING.points, 2, 0);
const noise = (k, n) => LAWS.normal(n, 2, 1, k), jump = (y, level, t) => LAWS.end(y, t, best);
const HOW = {
  ddpm: { path: LAWS.ladder(cosine), fresh: LAWS.posterior, guess: best, c: 'c = that of DDPM (chapter 3)' },
  ddim: { path: LAWS.ladder(cosine), guess: best, c: 'c = 0' },
  euler: { path: LAWS.straight, guess: best, c: 'c = 0' }, heun: { path: LAWS.straight, guess: best, heun: true, c: 'c = 0, two guesses per step' },
  two: { path: LAWS.exploding({ end: .002 }), fresh: LAWS.everything, guess: jump, steps: 2, c: 'c = σ of the next level: all noise is fresh' },
  one: { path: LAWS.exploding({ end: .002 }), fresh: LAWS.everything, guess: jump, steps: 1, c: 'no noise is left' },
};
const spread = .36, known = new Map();  // variance of the data along an axis, to draw all paths in one frame
const size = at => Math.sqrt(spread / (at.alpha ** 2 * spread + at.sigma ** 2));
function walked(name, steps) {
  const how = HOW[name], n = how.steps || steps, key = `${name} ${n}`;
  if (!known.has(key)) {
    const grid = how.path.grid(n), x = begin.map(z => how.path.start * z);
    const levels = [...grid.map(([t]) => how.path.level(t)), how.path.level(grid[n - 1][1])];
    known.set(key, { clouds: LAWS.walk(x, how, grid, noise), levels, n });
  }
  return known.get(key);
}
wake('points', (root, at) => {
  const name = at.sampler.value, walk = walked(name, +at.steps.value), frame = Math.min(walk.n, Math.floor(+at.at.value / 1001 * (walk.n + 1)));
  at.steps.disabled = Boolean(HOW[name].steps);
  const trails = walk.clouds.slice(0, frame + 1).map((z, k) => [z, size(walk.levels[k])]);
  dots(root.querySelector('canvas'), walk.clouds[frame], { scale: size(walk.levels[frame]), trails });
  const { alpha, sigma } = walk.levels[frame];
  says(root, `step ${frame} of ${walk.n}: α = ${short(alpha)}, σ = ${short(sigma)}; ${HOW[name].c}`);
});
wake('guidance', (root, at) => {
  const w = +at.w.value, path = LAWS.ladder(cosine);
  const [x] = LAWS.walk(begin, { path, guess: (y, level) => LAWS.guided(y, level, clouds, 0, w) }, path.grid(40)).slice(-1);
  dots(root.querySelector('canvas'), x, { kinds: true, ring: 2 });
  const mean = [0, 1].map(j => x.filter((_, i) => i % 2 === j).reduce((a, b) => a + b) / (x.length / 2));
  const width = Math.sqrt(x.reduce((sum, v, i) => sum + (v - mean[i % 2]) ** 2, 0) / x.length);
  const ringed = [...Array(x.length / 2).keys()].filter(i => Math.hypot(x[2 * i] - clouds.means[2][0], x[2 * i + 1] - clouds.means[2][1]) < 2.5 * clouds.stds[2]);
  says(root, `w = ${w}: ${ringed.length} of ${x.length / 2} points in the ring; spread of all points: ${width.toFixed(2)}`);
});
let rounds = null, down = null;
wake('meanshift', (root, at) => {
  const time = MOVING.fedBack, level = LAWS.straight.level(time), place = k => time * (30 - k) / 30;
  if (!rounds) {
    const data = LAWS.walk(begin, HOW.ddim, LAWS.ladder(cosine).grid(40)).pop();
    rounds = [data.map((v, i) => level.alpha * v + level.sigma * begin[i])];
    for (let k = 0; k < 30; k++) rounds.push(LAWS.shift(rounds[k], level, clouds));
    down = LAWS.walk(rounds[0], { path: LAWS.straight, guess: best }, [...Array(30).keys()].map(k => [place(k), place(k + 1)]));
  }
  const k = +at.at.value, [left, right] = root.querySelectorAll('canvas');
  dots(left, rounds[k], { scale: 1 / level.alpha, name: 'fed back' });
  dots(right, down[k], { scale: 1 / LAWS.straight.level(place(k)).alpha, name: 'a walk' });
  const places = new Set();
  for (let i = 0; i < rounds[k].length; i += 2) places.add(`${rounds[k][i].toFixed(2)} ${rounds[k][i + 1].toFixed(2)}`);
  says(root, `Fed back ${k} times at one level of noise: 200 points in ${places.size} places. A walk from the same start: step ${k} of 30.`);
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => redraws.forEach(draw => draw()));
}

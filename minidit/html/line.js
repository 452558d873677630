{  // names of its own, beside the search's
const figures = [...document.querySelectorAll('.walk')], button = document.querySelector('.controls button');
const range = document.querySelector('.controls input'), select = document.querySelector('.controls select');
const clouds = new Map(LINE.walks.map(w => [`${w.name} ${w.steps}`,
  { ...w, x: new Int8Array(Uint8Array.from(atob(w.x), c => c.charCodeAt(0)).buffer) }]));
const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
let playing = !calm, at = calm ? 1 : 0, before = 0;
function draw() {
  const style = getComputedStyle(document.body), ink = style.getPropertyValue('--ink'), trail = style.getPropertyValue('--c1');
  figures.forEach((figure, i) => {
    const walk = clouds.get(`${LINE.names[i]} ${select.value}`), last = walk.levels.length - 1, n = LINE.points;
    const frame = Math.min(last, Math.floor(at * (last + 1)));
    const canvas = figure.querySelector('canvas'), pen = canvas.getContext('2d'), half = canvas.width / 2;
    const place = (f, p, axis) => half + (axis ? -1 : 1) * walk.x[2 * (f * n + p) + axis] / 127 * (half - 4);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.strokeStyle = trail; pen.globalAlpha = .55; pen.lineWidth = 1;
    for (let p = 0; p < 10; p++) {
      pen.beginPath();
      for (let f = 0; f <= frame; f++) pen.lineTo(place(f, p, 0), place(f, p, 1));
      pen.stroke();
    }
    for (let p = 0; p < n; p++) {
      pen.fillStyle = p < 10 ? trail : ink; pen.globalAlpha = p < 10 ? 1 : .7;
      pen.beginPath(); pen.arc(place(frame, p, 0), place(frame, p, 1), p < 10 ? 3.2 : 2, 0, 7); pen.fill();
    }
    pen.globalAlpha = 1;
    figure.querySelector('span').textContent = `α = ${walk.levels[frame][0]}, σ = ${walk.levels[frame][1]}`;
  });
  range.value = String(Math.round(1000 * at));
  button.textContent = playing ? 'Pause' : 'Play';
}
function tick(now) {
  if (playing) {
    at = at + Math.min(now - before, 100) / 6000;  // a walk takes six seconds, and its end stays for one and a half
    if (at > 1.25) at = 0;
    draw();
  }
  before = now;
  requestAnimationFrame(tick);
}
button.addEventListener('click', () => { playing = !playing; if (playing && at >= 1) at = 0; draw(); });
range.addEventListener('input', () => { playing = false; at = range.value / 1000; draw(); });
select.addEventListener('change', draw);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
draw();
requestAnimationFrame(tick);
}

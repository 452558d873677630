// The laws of the package once more, for the pages that move: plain functions of numbers, tested equal to the Python to 1e-9.
// A cloud is a Float64Array of n points, (x, y) after (x, y). A level is {alpha, sigma}. A path has level(t), start and grid(n).
const LAWS = (() => {
  // ---------------------------------------------------------------------------------------------- random numbers (R.1 to R.5)
  function product(a, b) {  // the high and the low word of a 64-bit product
    const al = a & 0xffff, ah = a >>> 16, bl = b & 0xffff, bh = b >>> 16;
    const low = al * bl, one = al * bh, two = ah * bl;
    const middle = Math.floor(low / 65536) + (one % 65536) + (two % 65536);
    const high = ah * bh + Math.floor(one / 65536) + Math.floor(two / 65536) + Math.floor(middle / 65536);
    return [high >>> 0, ((middle % 65536) * 65536 + low % 65536) >>> 0];
  }
  function philox([c0, c1, c2, c3], [k0, k1]) {
    for (let i = 0; i < 10; i++) {
      const [h0, l0] = product(c0, 0xD2511F53), [h1, l1] = product(c2, 0xCD9E8D57);
      [c0, c1, c2, c3] = [(h1 ^ c1 ^ k0) >>> 0, l1, (h0 ^ c3 ^ k1) >>> 0, l0];
      k0 = (k0 + 0x9E3779B9) >>> 0; k1 = (k1 + 0xBB67AE85) >>> 0;
    }
    return [c0, c1, c2, c3];
  }
  function normal(n, per, seed, draw = 0, stream = 0) {  // n samples of `per` numbers each
    const z = new Float64Array(n * per);
    for (let i = 0; i < n; i++) {
      for (let b = 0; 4 * b < per; b++) {
        const u = philox([b, draw, i, stream], [seed, 0]).map(k => (k + 0.5) / 4294967296);
        for (let j = 0; j < 4 && 4 * b + j < per; j++) {
          const radius = Math.sqrt(-2 * Math.log(u[j & 2])), angle = 2 * Math.PI * u[(j & 2) + 1];
          z[i * per + 4 * b + j] = radius * (j & 1 ? Math.sin(angle) : Math.cos(angle));
        }
      }
    }
    return z;
  }
  // ---------------------------------------------------------------------------------------------- ladders (D.2, D.12 to D.16)
  const range = n => [...Array(n).keys()];
  const between = (a, b, n) => range(n).map(i => n === 1 ? a : i === n - 1 ? b : i * ((b - a) / (n - 1)) + a);
  function ofBetas(betas) {
    const bar = [1];
    for (const beta of betas) bar.push(bar[bar.length - 1] * (1 - beta));
    return bar;
  }
  const linear = (T = 1000) => ofBetas(between(0.1 / T, 20 / T, T));
  const scaledLinear = (T = 1000) => ofBetas(between(Math.sqrt(0.85 / T), Math.sqrt(12 / T), T).map(r => r * r));
  function cosine(T = 1000) {
    const f = range(T + 1).map(t => Math.cos((t / T + 0.008) / 1.008 * Math.PI / 2) ** 2);
    return ofBetas(range(T).map(i => Math.min(1 - f[i + 1] / f[i], 0.999)));
  }
  function zeroTerminal(bar) {
    const r = bar.slice(1).map(Math.sqrt), first = r[0], last = r[r.length - 1];
    return [1, ...r.map(x => ((x - last) * first / (first - last)) ** 2)];
  }
  // ---------------------------------------------------------------------------------------------- which rungs (D.24 to D.30)
  function even(x) {  // rounded, halves to even
    const low = Math.floor(x), rest = x - low;
    return rest > 0.5 || rest === 0.5 && low % 2 ? low + 1 : low;
  }
  const sorted = list => [...new Set(list)].sort((a, b) => a - b);
  const leading = (T, N) => range(N).map(k => k * Math.floor(T / N) + 1);
  const linspace = (T, N) => between(0, T - 1, N).map(r => even(r) + 1);
  const trailing = (T, N) => range(N).map(k => even(T - k * T / N)).sort((a, b) => a - b);
  const quadratic = (T, N) => sorted(between(0, Math.sqrt(0.8 * T), N).map(r => Math.floor(r * r) + 1));
  function sections(T, counts) {
    const rungs = [];
    let start = 0;
    counts.forEach((n, i) => {
      const size = Math.floor(T / counts.length) + (i < T % counts.length ? 1 : 0), stride = (size - 1) / Math.max(1, n - 1);
      for (let k = 0, place = 0; k < n; k++, place += stride) rungs.push(start + even(place) + 1);
      start += size;
    });
    return rungs;
  }
  function stride(T, N) {  // [] if no integer stride takes exactly N
    for (let i = 1; i <= T; i++) if (Math.ceil(T / i) === N) return range(N).map(k => k * i + 1);
    return [];
  }
  const pairs = rungs => rungs.map((t, i) => [t, i ? rungs[i - 1] : 0]).reverse();
  // ---------------------------------------------------------------------------------------------- paths (P.1, P.9, P.10, P.18, P.19)
  const ladder = bar => ({ level: t => ({ alpha: Math.sqrt(bar[t]), sigma: Math.sqrt(1 - bar[t]) }), start: 1,
    grid: n => pairs(trailing(bar.length - 1, n)) });
  const straight = { level: t => ({ alpha: 1 - t, sigma: t }), start: 1, grid: n => range(n).map(k => [(n - k) / n, (n - k - 1) / n]) };
  function karras(n, low, high) {
    const a = high ** (1 / 7), b = low ** (1 / 7);
    return n === 1 ? [high] : range(n).map(i => i === 0 ? high : i === n - 1 ? low : (a + i / (n - 1) * (b - a)) ** 7);
  }
  function exploding({ low = 0.002, high = 80, end = 0 } = {}) {
    const level = t => ({ alpha: 1, sigma: end ? Math.sqrt(t * t - end * end) : t });
    const times = n => end ? karras(n + 1, end, high) : [...karras(n, low, high), 0];
    return { level, start: level(high).sigma, grid: n => { const t = times(n); return range(t.length - 1).map(k => [t[k], t[k + 1]]); } };
  }
  // ---------------------------------------------------------------------------------------------- the best guess (D.42, G.6)
  // clouds: {weights, means: [[x, y], …], stds, classes}; kind: draw only the clouds of this class, or null for all
  function denoise(x, at, clouds, kind = null) {
    const out = new Float64Array(x.length), K = clouds.weights.length;
    for (let i = 0; i < x.length; i += 2) {
      const logs = range(K).map(k => {
        if (kind !== null && clouds.classes[k] !== kind) return -Infinity;
        const S = (at.alpha * clouds.stds[k]) ** 2 + at.sigma ** 2, [a, b] = clouds.means[k];
        return Math.log(clouds.weights[k]) - Math.log(S) - 0.5 * ((x[i] - at.alpha * a) ** 2 + (x[i + 1] - at.alpha * b) ** 2) / S;
      });
      const top = Math.max(...logs), r = logs.map(l => Math.exp(l - top)), sum = r.reduce((a, b) => a + b);
      for (let k = 0; k < K; k++) {
        const S = (at.alpha * clouds.stds[k]) ** 2 + at.sigma ** 2, slope = at.alpha * clouds.stds[k] ** 2 / S;
        for (const j of [0, 1]) out[i + j] += r[k] / sum * (clouds.means[k][j] + slope * (x[i + j] - at.alpha * clouds.means[k][j]));
      }
    }
    return out;
  }
  const noiseOf = (x, guess, at) => x.map((value, i) => (value - at.alpha * guess[i]) / at.sigma);  // (P.3)
  function guided(x, at, clouds, kind, w) {  // x̂_0 of the guided answer (G.1)
    const all = denoise(x, at, clouds), one = denoise(x, at, clouds, kind);
    return all.map((value, i) => value + w * (one[i] - value));
  }
  // ---------------------------------------------------------------------------------------------- one line (P.4 to P.6)
  function step(guess, noise, s, c = 0, z = null) {
    const rest = Math.sqrt(Math.max(0, s.sigma ** 2 - c * c));
    return guess.map((value, i) => s.alpha * value + rest * noise[i] + (z ? c * z[i] : 0));
  }
  const none = () => 0, everything = (t, s) => s.sigma;
  const posterior = (t, s) => Math.sqrt(Math.max(0, s.sigma ** 2 * (1 - (t.alpha * s.sigma / (t.sigma * s.alpha)) ** 2)));
  // every cloud from the first to the last; draw(k, n): the fresh noise of step k; guess(x, level, t): x̂_0
  function walk(x, { path, fresh = none, guess, heun = false }, grid, draw) {
    const clouds = [x];
    grid.forEach(([t, s], k) => {
      const now = path.level(t), below = path.level(s), data = guess(x, now, t), noise = noiseOf(x, data, now);
      let ends = step(data, noise, below, fresh(now, below), fresh !== none && below.sigma > 0 ? draw(k, x.length / 2) : null);
      if (heun && below.sigma > 0) {  // the mean of both ends' velocities u = ε̂ - x̂_0, read at x_t
        const there = guess(ends, below, s), other = noiseOf(ends, there, below);
        const u = data.map((value, i) => 0.5 * (noise[i] - value + other[i] - there[i])), sum = now.alpha + now.sigma;
        ends = step(x.map((value, i) => (value - now.sigma * u[i]) / sum), x.map((value, i) => (value + now.alpha * u[i]) / sum), below);
      }
      clouds.push(x = ends);
    });
    return clouds;
  }
  function end(x, t, guess, steps = 60) {  // the end of each point's curve: what a perfect consistency model answers (S.1)
    const path = exploding({ low: t / 1000, high: t }), clouds = walk(x, { path, guess }, path.grid(steps));
    return clouds[clouds.length - 1];
  }
  const shift = (x, at, clouds) => denoise(x, at, clouds).map(value => at.alpha * value);  // fed back at one level (D.46)
  return { philox, normal, linear, scaledLinear, cosine, zeroTerminal, leading, linspace, trailing, quadratic, sections, stride, pairs,
    ladder, straight, karras, exploding, denoise, noiseOf, guided, step, none, everything, posterior, walk, end, shift };
})();
if (typeof module !== 'undefined') module.exports = LAWS;

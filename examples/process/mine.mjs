// A program in another language under verification: node examples/process/mine.mjs, asked by
//   minidit verify --exec "node examples/process/mine.mjs"
// One JSON object per line in and out (docs/protocol.md). With --wrong it takes the wrong rung below, which the kit names M02.
import { createInterface } from "node:readline";

const wrong = process.argv.includes("--wrong");
const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");
const like = (x, data) => ({ dtype: "float64", shape: x.shape, data });

const topics = {
  ddim_step(x_t, eps, t, s, alpha_bar, eta, z) {
    const table = alpha_bar.data;
    const below = wrong && t > 0 ? t - 1 : s;
    const a_t = table[t], a_s = below < 0 ? 1 : table[below];
    const sigma = eta * Math.sqrt(((1 - a_s) / (1 - a_t)) * (1 - a_t / a_s));
    const ahead = Math.sqrt(Math.max(0, 1 - a_s - sigma * sigma));
    return like(x_t, x_t.data.map((x, i) => {
      const x_0 = (x - Math.sqrt(1 - a_t) * eps.data[i]) / Math.sqrt(a_t);
      return Math.sqrt(a_s) * x_0 + ahead * eps.data[i] + (s < 0 ? 0 : sigma * z.data[i]);
    }));
  },
  q_sample(x_0, eps, t, alpha_bar) {
    const each = x_0.data.length / t.data.length; // entries of one picture
    return like(x_0, x_0.data.map((x, i) => {
      const a = alpha_bar.data[t.data[Math.floor(i / each)]];
      return Math.sqrt(a) * x + Math.sqrt(1 - a) * eps.data[i];
    }));
  },
  cosine_betas(T) {
    const f = (i) => Math.cos(((i / T + 0.008) / 1.008) * (Math.PI / 2)) ** 2;
    return { dtype: "float64", shape: [T], data: Array.from({ length: T }, (_, i) => Math.min(1 - f(i + 1) / f(i), 0.999)) };
  },
  guide: (eps_u, eps_c, w) => like(eps_u, eps_u.data.map((u, i) => u + w * (eps_c.data[i] - u))),
  timestep_embedding(t, width) {
    const half = width / 2, rows = t.data.map((step) => {
      const angles = Array.from({ length: half }, (_, i) => step * Math.exp((-Math.log(10000) * i) / half));
      return [...angles.map(Math.cos), ...angles.map(Math.sin)];
    });
    return { dtype: "float64", shape: [t.data.length, width], data: rows.flat() };
  },
};

let greeted = false;
for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  if (!greeted) {
    greeted = true; // a large inline asks for every array in the line, so that no file has to be read
    say({ protocol: 1, name: wrong ? "mine.mjs --wrong" : "mine.mjs", topics: Object.keys(topics), inline: 1e9 });
    continue;
  }
  try {
    say({ id: asked.id, answer: topics[asked.topic](...asked.args) });
  } catch (error) {
    say({ id: asked.id, error: String(error) });
  }
}

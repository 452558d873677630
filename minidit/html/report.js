"use strict";

// The denoising slider: both canvases show the tiles of one rung, cut out of an atlas that holds every tile of every rung.
for (const box of document.querySelectorAll("[data-trace]")) {
  const trace = JSON.parse(box.dataset.trace);
  const slider = box.querySelector("input"), output = box.querySelector("output"), button = box.querySelector("button");
  const views = [...box.querySelectorAll("canvas")].map(canvas => ({ canvas, atlas: box.querySelector("#" + canvas.dataset.atlas) }));
  const { width, height, count, across, columns, rungs, steps, gap } = trace, all = steps[steps.length - 1];

  function show() {
    const s = Number(slider.value);
    for (const { canvas, atlas } of views) {
      const pen = canvas.getContext("2d");
      pen.imageSmoothingEnabled = false;
      for (let j = 0; j < count; j++) {
        const k = s * count + j;
        pen.drawImage(atlas, (k % across) * width, Math.floor(k / across) * height, width, height,
          (j % columns) * (width + gap), Math.floor(j / columns) * (height + gap), width, height);
      }
    }
    output.textContent = `t = ${rungs[s]}`;
    slider.setAttribute("aria-valuetext", `rung t = ${rungs[s]}, ${steps[s]} of ${all} steps taken`);
    box.querySelector("[data-step]").textContent = `${steps[s]} of ${all} steps taken`;
  }

  let timer = null;
  function stop() {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  }
  button.addEventListener("click", () => {
    if (timer !== null) return stop();
    if (Number(slider.value) === rungs.length - 1) slider.value = 0;
    button.textContent = "Pause";
    show();
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      show();
      if (Number(slider.value) === rungs.length - 1) stop();
    }, Math.max(40, 5000 / rungs.length));
  });
  slider.addEventListener("input", () => { stop(); show(); });
  Promise.all(views.map(v => v.atlas.decode())).then(show);
}

// The pictures drawn during training: one is shown, the others wait.
for (const box of document.querySelectorAll("[data-frames]")) {
  const slider = box.querySelector("input"), output = box.querySelector("output"), frames = [...box.querySelectorAll("img")];
  function show() {
    frames.forEach((frame, i) => { frame.hidden = i !== Number(slider.value); });
    output.textContent = frames[Number(slider.value)].alt;
    slider.setAttribute("aria-valuetext", output.textContent);
  }
  slider.addEventListener("input", show);
  show();
}

// Charts tell the value under the pointer, or the one chosen with the arrow keys.
for (const chart of document.querySelectorAll("svg[data-points]")) {
  const points = JSON.parse(chart.dataset.points), here = chart.querySelector(".here");
  const output = chart.closest("figure").querySelector("output"), resting = output.textContent;
  let at = points.length - 1;
  function show(i) {
    at = Math.max(0, Math.min(points.length - 1, i));
    const [x, step, value] = points[at];
    here.setAttribute("transform", `translate(${x} 0)`);
    here.style.visibility = "visible";
    output.textContent = `${value} at ${chart.dataset.axis ?? "step"} ${step}`;
  }
  function rest() {
    here.style.visibility = "hidden";
    output.textContent = resting;
    at = points.length - 1;
  }
  chart.addEventListener("pointermove", event => {
    const frame = chart.getBoundingClientRect(), x = (event.clientX - frame.left) / frame.width * chart.viewBox.baseVal.width;
    show(points.reduce((best, p, i) => Math.abs(p[0] - x) < Math.abs(points[best][0] - x) ? i : best, 0));
  });
  chart.addEventListener("keydown", event => {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -points.length, End: points.length }[event.key];
    if (move === undefined) return;
    event.preventDefault();
    show(at + move);
  });
  for (const leave of ["pointerleave", "blur"]) chart.addEventListener(leave, rest);
}

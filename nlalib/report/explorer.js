// Sliders for NAW: its surface, and weight, loss and gradient at a point of it.
//
// The formula of nlalib.methods.nla.weights, in the browser: as an anywidget in JupyterLab, and
// without any kernel in the book. tests/report/test_explorer.py compares it with the library.

export const CLASSES = 7; // the basic expressions
export const EPOCHS = 60; // the paper's schedule
const SLOPE = 15;
const HIGHEST = 2; // of 1 + w in all versions: one scale of colours, so that epochs compare by eye

// Each case: s of the covariance [[s, c], [c, s]], the ratio of its axes, and the mean.
const ratioOf = (s, c) => Math.sqrt((s + c) / (s - c));
const TRUE_CASE = { sigma: 0.8, ratio: 2, p_gt: 0.5, p_nn: 0.5 };
const FALSE_CASE = { sigma: 0.8, ratio: 6, p_gt: 0.3, p_nn: 0.15 };
export const VERSIONS = {
  paper: { normalised: true, true: TRUE_CASE, false: FALSE_CASE },
  released_2025_05: {
    normalised: true, true: TRUE_CASE, false: { ...FALSE_CASE, sigma: (0.91 ** 2 * 37) / 36 },
  },
  v_naw: {
    normalised: false,
    true: { ...TRUE_CASE, sigma: 0.75, ratio: ratioOf(0.75, 0.5) },
    false: { ...FALSE_CASE, sigma: 0.85, ratio: ratioOf(0.85, 0.8) },
  },
};

/** The Gaussian of a point's own case: [w, dw / dp_gt, dw / dp_nn]. */
export function weightAndSlopes(p_gt, p_nn, epoch, version) {
  const isTrue = p_gt >= p_nn;
  const { sigma, ratio, p_gt: mean_gt, p_nn: mean_nn } = isTrue ? version.true : version.false;
  const magnitude = (sigma * (ratio ** 2 - 1)) / (ratio ** 2 + 1);
  const covariance = isTrue ? -magnitude * (1 - Math.exp((-SLOPE * epoch) / EPOCHS)) : magnitude;
  const along = p_gt - mean_gt + (p_nn - mean_nn);
  const across = p_gt - mean_gt - (p_nn - mean_nn);
  const [wide, narrow] = [sigma + covariance, sigma - covariance];
  const peak = version.normalised ? 1 / (2 * Math.PI * Math.sqrt(wide * narrow)) : 1;
  const weight = peak * Math.exp(-(along ** 2) / (4 * wide) - across ** 2 / (4 * narrow));
  const [slopeAlong, slopeAcross] = [along / (2 * wide), across / (2 * narrow)];
  return [weight, -weight * (slopeAlong + slopeAcross), -weight * (slopeAlong - slopeAcross)];
}

/** The nearest point that the probabilities of seven classes allow, all of them above 0. */
export function possiblePoint(p_gt, p_nn) {
  const label = Math.min(Math.max(p_gt, 0.001), 0.998);
  const rest = 1 - label;
  return [label, Math.min(Math.max(p_nn, rest / (CLASSES - 1)), rest * 0.9999)];
}

/** Weight, loss and gradients of (1 + w) CE and of CE at a point, by the logits of both classes. */
export function pointValues(p_gt, p_nn, epoch, version) {
  const [weight, byLabel, byNearest] = weightAndSlopes(p_gt, p_nn, epoch, version);
  const cross_entropy = -Math.log(p_gt);
  const shared = p_gt * p_nn;
  const weightByLabel = byLabel * p_gt * (1 - p_gt) - byNearest * shared;
  const weightByNearest = byNearest * p_nn * (1 - p_nn) - byLabel * shared;
  return {
    weight,
    cross_entropy,
    loss: (1 + weight) * cross_entropy,
    gradient_label: (1 + weight) * (p_gt - 1) + cross_entropy * weightByLabel,
    gradient_nearest: (1 + weight) * p_nn + cross_entropy * weightByNearest,
    plain_gradient_label: p_gt - 1,
    plain_gradient_nearest: p_nn,
  };
}

// ---- the picture

const VIRIDIS = [
  [68, 1, 84], [72, 36, 117], [65, 68, 135], [53, 95, 141], [42, 120, 142], [33, 145, 140],
  [34, 168, 132], [68, 191, 112], [122, 209, 81], [189, 223, 38], [253, 231, 37],
];
const DOTS = 201; // of a side of the surface

function colourOf(share) {
  const place = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1);
  const lower = Math.min(Math.floor(place), VIRIDIS.length - 2);
  return VIRIDIS[lower].map((v, i) => v + (place - lower) * (VIRIDIS[lower + 1][i] - v));
}

function paintSurface(canvas, epoch, version) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(DOTS, DOTS);
  for (let row = 0; row < DOTS; row += 1) {
    for (let column = 0; column + (DOTS - 1 - row) <= DOTS - 1; column += 1) {
      const [p_gt, p_nn] = [column / (DOTS - 1), (DOTS - 1 - row) / (DOTS - 1)];
      const [weight] = weightAndSlopes(p_gt, p_nn, epoch, version);
      image.data.set([...colourOf(weight / (HIGHEST - 1)), 255], 4 * (row * DOTS + column));
    }
  }
  context.putImageData(image, 0, 0);
}

const place = (p_gt, p_nn) => `translate(${100 * p_gt} ${100 * (1 - p_nn)})`;

const HTML = `
<style>
.naw { display: flex; flex-wrap: wrap; gap: 1em 2em; max-width: 56em; font-size: 0.9em; }
.naw .picture { flex: 1 1 17em; max-width: 24em; }
.naw .controls { flex: 1 1 17em; }
.naw .stage { position: relative; aspect-ratio: 1; margin: 0 0 0.3em; touch-action: none; }
.naw canvas, .naw svg { position: absolute; width: 100%; height: 100%; }
.naw svg { overflow: visible; cursor: crosshair; }
.naw label { display: grid; grid-template-columns: 9.5em 1fr 3.2em; gap: 0.5em; align-items: center; }
.naw .normalised { display: block; }
.naw output { text-align: right; font-variant-numeric: tabular-nums; }
.naw .row { display: flex; gap: 0.6em; flex-wrap: wrap; margin-bottom: 0.5em; }
.naw .bar { height: 0.8em; background: linear-gradient(to right, ${VIRIDIS.map((c) => `rgb(${c})`)}); }
.naw .ends { display: flex; justify-content: space-between; }
.naw td:last-child { text-align: right; padding-left: 1.5em; font-variant-numeric: tabular-nums; }
</style>
<div class="naw">
  <div class="picture">
    <strong class="title"></strong>
    <div class="stage">
      <canvas width="${DOTS}" height="${DOTS}"></canvas>
      <svg viewBox="0 0 100 100" role="img">
        <title>1 + w over the triangle of two probabilities</title>
        <line x1="0" y1="100" x2="50" y2="50" stroke="white" stroke-width="0.5" />
        <path d="M0 0 V100 H100" fill="none" stroke="currentColor" stroke-width="0.6" />
        <circle class="true" r="2" fill="white" stroke="black" stroke-width="0.6" />
        <path class="false" d="M-2 -2 L2 2 M-2 2 L2 -2" stroke="white" stroke-width="1.6" />
        <circle class="point" r="2.6" fill="#D55E00" stroke="white" stroke-width="0.8" />
      </svg>
    </div>
    <div class="ends"><span>p_nn up, p_gt to the right</span><span>0 to 1</span></div>
    <div class="bar"></div>
    <div class="ends"><span>1</span><span>1 + w</span><span>${HIGHEST}</span></div>
    <small>orange: the sample (drag it); circle and cross: means of the True and False case</small>
  </div>
  <div class="controls">
    <div class="row">
      <select aria-label="version"></select>
      <button type="button" class="play">play</button>
      <button type="button" class="reset">reset</button>
    </div>
    <div class="sliders"></div>
    <label class="normalised"><input type="checkbox" /> normalised: a probability density</label>
    <table><tbody></tbody></table>
    <small class="moved"></small>
  </div>
</div>`;

const SLIDERS = [ // path in the state, lowest, highest, step, words
  ["epoch", 0, EPOCHS - 1, 1, "epoch e"],
  ["p_gt", 0, 1, 0.01, "label: p_gt"],
  ["p_nn", 0, 1, 0.01, "nearest: p_nn"],
  ...["true", "false"].flatMap((name) => {
    const words = name === "true" ? "True case" : "False case";
    return [
      [`${name}.sigma`, 0.05, 2, 0.001, `${words}: σ₁₁`],
      [`${name}.ratio`, 1, 10, 0.001, `${words}: axes' ratio`],
      [`${name}.p_gt`, 0, 1, 0.01, `${words}: mean p_gt`],
      [`${name}.p_nn`, 0, 1, 0.01, `${words}: mean p_nn`],
    ];
  }),
];
const START = { epoch: EPOCHS - 1, p_gt: 0.35, p_nn: 0.5 };
const CUSTOM = "custom";

/** Put the explorer into an element; returns what ends it. */
export function show(element) {
  element.innerHTML = HTML;
  const find = (selector) => element.querySelector(selector);
  const state = { ...START, version: structuredClone(VERSIONS.paper) };
  const select = find("select");
  for (const name of [...Object.keys(VERSIONS), CUSTOM]) select.add(new Option(name));

  const holderOf = (path) => (path.includes(".") ? state.version[path.split(".")[0]] : state);
  const inputs = SLIDERS.map(([path, min, max, step, words]) => {
    const label = document.createElement("label");
    label.innerHTML = `<span>${words}</span><input type="range"><output></output>`;
    const input = label.querySelector("input");
    Object.assign(input, { min, max, step });
    input.dataset.path = path;
    input.addEventListener("input", () => {
      holderOf(path)[path.split(".").pop()] = Number(input.value);
      if (path.includes(".")) select.value = CUSTOM;
      draw();
    });
    find(".sliders").append(label);
    return input;
  });
  const normalised = find(".normalised input");

  function draw() {
    const { epoch, version } = state;
    const [p_gt, p_nn] = possiblePoint(state.p_gt, state.p_nn);
    paintSurface(find("canvas"), epoch, version);
    find(".title").textContent = `1 + w at e = ${epoch}`;
    for (const name of ["true", "false"]) {
      const { p_gt: x, p_nn: y } = version[name];
      find(`svg .${name}`).setAttribute("transform", place(x, y));
    }
    find("svg .point").setAttribute("transform", place(p_gt, p_nn));
    for (const input of inputs) {
      const value = holderOf(input.dataset.path)[input.dataset.path.split(".").pop()];
      input.value = value;
      input.nextElementSibling.value = input.step === "1" ? value : value.toFixed(2);
    }
    normalised.checked = version.normalised;
    const values = { p_gt, p_nn, ...pointValues(p_gt, p_nn, epoch, version) };
    find("tbody").innerHTML = Object.entries(values)
      .map(([name, v]) => `<tr><td>${name.replaceAll("_", " ")}</td><td>${v.toFixed(4)}</td></tr>`)
      .join("");
    const moved = p_gt !== state.p_gt || p_nn !== state.p_nn;
    find(".moved").textContent = moved ? "moved to a possible point" : "";
  }

  normalised.addEventListener("change", () => {
    state.version.normalised = normalised.checked;
    select.value = CUSTOM;
    draw();
  });
  select.addEventListener("change", () => {
    if (select.value !== CUSTOM) state.version = structuredClone(VERSIONS[select.value]);
    draw();
  });
  const svg = find("svg");
  const drag = (event) => {
    if (event.type === "pointermove" && event.buttons === 0) return;
    const box = svg.getBoundingClientRect();
    state.p_gt = Math.round((100 * (event.clientX - box.left)) / box.width) / 100;
    state.p_nn = Math.round((100 * (box.bottom - event.clientY)) / box.height) / 100;
    [state.p_gt, state.p_nn] = possiblePoint(state.p_gt, state.p_nn);
    draw();
  };
  svg.addEventListener("pointerdown", drag);
  svg.addEventListener("pointermove", drag);

  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    find(".play").textContent = "play";
  };
  find(".play").addEventListener("click", () => {
    if (timer !== null) return stop();
    find(".play").textContent = "stop";
    timer = setInterval(() => {
      state.epoch = (state.epoch + 1) % EPOCHS;
      draw();
    }, 150);
  });
  find(".reset").addEventListener("click", () => {
    stop();
    Object.assign(state, START, { version: structuredClone(VERSIONS.paper) });
    select.value = "paper";
    draw();
  });
  draw();
  return stop;
}

export default { render: ({ el }) => show(el) };

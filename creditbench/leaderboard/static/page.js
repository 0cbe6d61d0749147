// The page without this script is whole but for its charts; this sorts, filters and draws.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const make = (tag, text, attributes = {}) => {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};
const board = $("board");
const body = board.tBodies[0];
const lines = [...body.rows];
const heat = new Map([...$("heat").tBodies[0].rows].map((line) => [line.dataset.row, line]));
const SCORE = 3; // the column that shows one task's score while a task is picked

// -- sorting ------------------------------------------------------------------------------------------

const headers = [...board.tHead.rows[0].cells];
let order = { column: 0, direction: "ascending" };

function compare(x, y) {
  if (x === "" || y === "") return (x === "") - (y === "") || 0; // what is missing comes last
  const [a, b] = [Number(x), Number(y)];
  const found = Number.isNaN(a) || Number.isNaN(b) ? x.localeCompare(y) : a - b;
  return order.direction === "ascending" ? found : -found;
}

function sort() {
  const key = (line) => line.cells[order.column].dataset.value;
  lines.sort((a, b) => compare(key(a), key(b)) || a.dataset.row - b.dataset.row);
  body.append(...lines);
  $("heat").tBodies[0].append(...lines.map((line) => heat.get(line.dataset.row)));
  headers.forEach((header, i) => header.setAttribute("aria-sort", i === order.column ? order.direction : "none"));
}

for (const header of headers) {
  const button = header.querySelector("button");
  button.addEventListener("click", () => {
    const column = Number(button.dataset.column);
    const first = button.dataset.first === "desc" ? "descending" : "ascending";
    const other = first === "descending" ? "ascending" : "descending";
    order = { column, direction: order.column === column && order.direction === first ? other : first };
    sort();
  });
}

// -- filters ------------------------------------------------------------------------------------------

const filters = [...document.querySelectorAll("[data-filter]")];
const whole = new Map(lines.map((line) => [line, [line.cells[SCORE].dataset.value, [...line.cells[SCORE].childNodes]]]));
const scoreTitle = headers[SCORE].querySelector("button");

function chosen() {
  return Object.fromEntries(filters.map((filter) => [filter.dataset.filter, filter.value.trim().toLowerCase()]));
}

function passes(line, want) {
  const own = line.dataset;
  return (
    own.text.includes(want.text) &&
    (!want.backend || own.backend === want.backend) &&
    (!want.device || own.device === want.device) &&
    (!want.family || own.family.toLowerCase() === want.family) &&
    (!want.claim || own.claims.split(" ").includes(want.claim)) &&
    (!want.task || own.tasks.toLowerCase().split(" ").includes(want.task))
  );
}

function filter() {
  const want = chosen();
  const task = $("filter-task").value;
  let count = 0;
  for (const line of lines) {
    const cell = line.cells[SCORE];
    const [value, nodes] = whole.get(line);
    const own = task && data.rows[line.dataset.row].tasks[task];
    cell.dataset.value = task ? (own ? own[0] : "") : value;
    cell.replaceChildren(...(task ? (own ? [own[0].toFixed(2) + " ", make("small", `(${own[1].toFixed(2)} … ${own[2].toFixed(2)})`)] : ["–"]) : nodes));
    line.hidden = !passes(line, want);
    heat.get(line.dataset.row).hidden = line.hidden;
    count += !line.hidden;
  }
  scoreTitle.textContent = task ? `Score on ${task}` : "Score";
  $("count").textContent = `${count} of ${lines.length} rows`;
  sort();
  if (task && task !== $("curve-task").value) $("curve-task").value = task;
  draw();
}

const form = document.querySelector(".filters");
for (const element of filters) element.addEventListener(element.tagName === "SELECT" ? "change" : "input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(filter));

// -- rules in the charts ------------------------------------------------------------------------------

const boxes = data.rules.map((rule) => {
  const label = make("label");
  const box = make("input", null, { type: "checkbox", value: rule });
  const chip = make("span", null, { class: "chip", style: `background:${data.colours[rule]}`, "aria-hidden": "true" });
  label.append(box, chip, rule);
  $("legend").append(label);
  box.addEventListener("change", draw);
  return box;
});
function show(test) {
  boxes.forEach((box, i) => { box.checked = test(box.value, i); });
  draw();
}
const best = (rule, i) => i < 8 || rule === "bptt";
$("show-best").addEventListener("click", () => show(best));
$("show-all").addEventListener("click", () => show(() => true));
$("show-none").addEventListener("click", () => show(() => false));
const strokes = ["solid line or circle", "dashed line or square", "dotted line or triangle", "dash-dotted line or diamond"];
$("strokes").textContent = data.backends.map((backend, i) => `${backend}: ${strokes[i % strokes.length]}`).join("; ") + ".";

// Rows of the board that the charts show, by their numbers.
function visible() {
  const rules = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
  const shown = lines.filter((line) => !line.hidden).map((line) => Number(line.dataset.row));
  return new Set(shown.filter((i) => rules.has(data.rows[i].rule)));
}

// -- charts -------------------------------------------------------------------------------------------

function theme() {
  const style = getComputedStyle(document.documentElement);
  const [text, line, soft] = ["--text", "--line", "--soft"].map((name) => style.getPropertyValue(name).trim());
  return {
    background: "transparent",
    view: { stroke: "transparent" },
    axis: { labelColor: text, titleColor: soft, gridColor: line, domainColor: soft, tickColor: soft, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", gridOpacity: 0.6 },
    text: { color: text },
  };
}

const turns = new Map(); // the latest drawing of each place, so that an older one cannot come after it
async function chart(place, name, values, describe, change) {
  const turn = (turns.get(place) || 0) + 1;
  turns.set(place, turn);
  const element = $(place);
  if (!values.length) {
    element.replaceChildren(make("p", "Nothing to show: no row passes the filters, or nothing was measured.", { class: "empty" }));
    table(element, []);
    return;
  }
  const specification = structuredClone(data.charts[name]);
  specification.datasets = { data: values };
  specification.config = theme();
  if (describe) specification.description += `: ${describe}`;
  if (change) change(specification);
  // What is below stays where it is while this is drawn anew.
  element.style.minHeight = `${element.offsetHeight}px`;
  const target = make("div", null, { style: "width:100%" });
  element.replaceChildren(target);
  const found = await window.vegaEmbed(target, specification, { actions: false, renderer: "svg" });
  if (turns.get(place) !== turn) found.finalize();
  else table(element, values);
}

// The same figures as a table, made when it is opened.
function table(element, values) {
  const figure = element.closest("figure");
  figure.querySelector("details")?.remove();
  if (!values.length) return;
  const details = make("details");
  details.append(make("summary", "As a table"));
  details.addEventListener("toggle", () => {
    if (!details.open || details.querySelector("table")) return;
    const columns = Object.keys(values[0]).filter((name) => !["row", "place", "trivial", "solved", "group"].includes(name));
    const found = make("table");
    const head = found.createTHead().insertRow();
    columns.forEach((name) => head.append(make("th", name.replaceAll("_", " "), { scope: "col" })));
    const inside = found.createTBody();
    for (const value of values) {
      const line = inside.insertRow();
      columns.forEach((name) => line.append(make("td", value[name] ?? "–")));
    }
    const scroll = make("div", null, { class: "scroll", tabindex: "0", role: "region", "aria-label": "Figures of the chart", style: "max-height:24rem;overflow:auto" });
    scroll.append(found);
    details.append(scroll);
  });
  figure.append(details);
}

const about = (i) => ({ row: i, rule: data.rows[i].rule, backend: data.rows[i].backend });

function curves(shown) {
  const task = $("curve-task").value;
  const axis = $("curve-axis").value;
  const own = data.curves[task];
  const values = own.lines
    .filter(([i]) => shown.has(i))
    .flatMap(([i, steps, seconds, median, low, high]) =>
      steps.map((step, k) => ({ ...about(i), [axis]: axis === "step" ? step : seconds[k], median: median[k], low: low[k], high: high[k], trivial: own.trivial, solved: own.solved })));
  const domain = [...own.domain];
  const ends = own.lines.filter(([i]) => shown.has(i)).map(([i, , , median]) => [i, median.at(-1)]);
  const outside = ([, end]) => end === null || end < domain[0] || end > domain[1];
  const numbers = ends.map(([, end]) => end).filter((end) => end !== null);
  if (numbers.length && ends.every(outside)) { // then the best of them counts
    const least = own.direction === "min";
    const best = Math[least ? "min" : "max"](...numbers);
    domain[least ? 1 : 0] = best + 0.03 * (best - domain[least ? 0 : 1]);
  }
  const beyond = ends.filter(outside).map(([i]) => `${data.rows[i].rule} ${data.rows[i].backend}`);
  $("curve-caption").textContent =
    `${own.metric} on ${task}, ${own.direction === "min" ? "lower" : "higher"} is better: median over seeds, band from the worst to the best` +
    (own.trivial === null ? "" : "; dashed: the trivial predictor") + (own.solved === null ? "" : "; dotted: solved") + "." +
    (beyond.length ? ` Worse than the axis shows at the end: ${beyond.join(", ")}.` : "");
  return chart("chart-curves", `curves_${axis}`, values, task, (specification) => {
    specification.params.find((parameter) => parameter.name === "domain").value = domain;
    specification.layer = specification.layer.filter((layer) => own[layer.name] !== null);
    // Many bands over each other hide the lines.
    if (shown.size > 20) specification.layer[0].mark.opacity = 0;
  });
}

function pareto(shown, place, name, field, cost) {
  const values = data.rows.flatMap((row, i) =>
    shown.has(i) && row.iqm && row[field] !== null
      ? [{ ...about(i), [field]: row[field], score: row.iqm[0], low: row.iqm[1], high: row.iqm[2], front: row.front[cost] ? "yes" : "no", group: `${row.backend} ${row.device}` }]
      : []);
  return chart(place, name, values, null, (specification) => {
    // Vega warns of layers that have nothing to draw.
    if (values.some((value) => value.front === "yes")) return;
    specification.layer = specification.layer.filter((layer) => !layer.name?.startsWith("front"));
  });
}

function profile(shown) {
  const group = data.profiles[$("profile-group").value] || {};
  const values = (group[$("profile-cost").value] || [])
    .filter(([i]) => shown.has(i))
    .flatMap(([i, tau, rho]) => tau.map((t, k) => ({ ...about(i), tau: t, rho: rho[k] })));
  return chart("chart-profile", "profile", values, $("profile-cost").value);
}

// Measurements beside training name a learner: they are shown while any row of it is.
function measured(shown) {
  const found = new Set([...shown].map((i) => `${data.rows[i].learner}\n${data.rows[i].backend}`));
  return (learner, backend) => found.has(`${learner}\n${backend}`);
}

function scaling(shown) {
  const [axis, quantity] = [$("scaling-axis").value, $("scaling-quantity").value];
  const on = measured(shown);
  const values = data.scaling
    .filter((point) => point[2] === axis && point[3] === quantity && on(point[0], point[1]))
    .map(([learner, backend, , , size, value, exponent, claimed]) => ({ row: `${learner} ${backend}`, rule: learner, backend, size, value, exponent, claimed }));
  return chart("chart-scaling", "scaling", values.filter((point) => point.value > 0), `${quantity} in ${axis}`);
}

function gradients(shown) {
  const [figure, task] = [$("gradient-figure").value, $("gradient-task").value];
  const at = 5 + {{gradient_figures}}.indexOf(figure);
  const on = measured(shown);
  const values = data.gradients
    .filter((row) => row[2] === task && on(row[0], row[1]) && row[at][0] !== null)
    .map((row) => ({ row: `${row[0]} ${row[1]}`, rule: row[0], backend: row[1], point: row[3], draws: row[4], place: `${row[3]} ${row[1]}`, [figure]: row[at][0], low: row[at][1] ?? row[at][0], high: row[at][2] ?? row[at][0] }));
  return chart("chart-gradient", `gradient_${figure}`, values, task);
}

function draw() {
  if (!window.vegaEmbed) return;
  const shown = visible();
  const all = [
    curves(shown),
    pareto(shown, "chart-forward", "pareto_forward", "forward", "ratio_forward"),
    pareto(shown, "chart-bytes", "pareto_bytes", "bytes", "algorithm_bytes"),
    profile(shown),
  ];
  if (data.scaling.length) all.push(scaling(shown));
  if (data.gradients.length) all.push(gradients(shown));
  document.documentElement.dataset.drawn = "no";
  return Promise.all(all).then(() => { document.documentElement.dataset.drawn = "yes"; });
}

for (const id of ["curve-task", "curve-axis"]) $(id).addEventListener("change", () => curves(visible()));
for (const id of ["profile-cost", "profile-group"]) $(id).addEventListener("change", () => profile(visible()));
for (const id of ["scaling-quantity", "scaling-axis"]) $(id).addEventListener("change", () => scaling(visible()));
for (const id of ["gradient-figure", "gradient-task"]) $(id).addEventListener("change", () => gradients(visible()));

// -- theme and rules ----------------------------------------------------------------------------------

const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
const label = () => $("theme").setAttribute("aria-pressed", String(isDark()));
$("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  label();
  draw();
});
dark.addEventListener("change", () => { label(); draw(); });
label();

// A link to a rule opens it.
function open() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.tagName === "DETAILS") {
    target.open = true;
    target.scrollIntoView();
  }
}
addEventListener("hashchange", open);
document.addEventListener("click", (event) => {
  if (event.target.closest?.('a[href^="#rule-"]')) setTimeout(open);
});
open();

boxes.forEach((box, i) => { box.checked = best(box.value, i); });
filter();

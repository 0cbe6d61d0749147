// The page: what is picked, kept in its address; the ranking, the summary and the charts of that.

const $ = (id) => document.getElementById(id);
const make = (tag, text, attributes = {}) => {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};

// -- data ---------------------------------------------------------------------------------------------

const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
async function unpack(id) {
  const stream = new Blob([bytes($(id).textContent)]).stream().pipeThrough(new DecompressionStream("deflate"));
  $(id).remove();
  return new Response(stream).text();
}

// A cell as `_cell` of page.py wrote it, with its runs: of the whole list, those from `first` on.
function cellOf(given, runs, first) {
  const [records, metrics, status, stale, normalises, quick, untuned, steps, seconds, costs] = given;
  const units = new Map();
  let diverged = 0;
  for (let i = first; i < first + records; i++) {
    const score = runs.status[i] === "diverged" ? -Infinity : runs.status[i] === "ok" ? runs.normalised_score[i] : null;
    diverged += runs.status[i] === "diverged";
    if (score === null) continue;
    const unit = runs.study[i] ?? `seed ${runs.seed[i]}`;
    if (!units.has(unit)) units.set(unit, []);
    units.get(unit).push(score);
  }
  const scores = [...units.values()];
  return { runs: scores.flat(), sizes: scores.map((unit) => unit.length), records, metrics, status, stale, normalises, quick, untuned, diverged, steps, seconds, costs, first };
}

const data = JSON.parse(await unpack("data"));
let read = 0;
for (const row of data.rows) {
  for (const task of Object.keys(row.cells)) {
    row.cells[task] = cellOf(row.cells[task], data.runs, read);
    read += row.cells[task].records;
  }
  const bounded = (found) => found && [found[0], found[1] ?? -Infinity, found[2] ?? Infinity];
  for (const name in row.scores) row.scores[name] = bounded(row.scores[name]);
  row.improvement = bounded(row.improvement);
  row.label = [row.rule, row.backend, ...(row.device === "cpu" ? [] : [row.device])].join(" ");
  row.group = `${row.backend} ${row.device}`;
}

// A number as Python's format writes it, in forms such as `.2f`, `,.4g` and `.3e`.
function written(value, form) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value < 0 ? "-inf" : "inf";
  const [, comma, digits, kind] = form.match(/^(,?)\.(\d+)([efg])$/);
  if (kind === "f") return comma ? value.toLocaleString("en", { minimumFractionDigits: +digits, maximumFractionDigits: +digits }) : value.toFixed(+digits);
  const [mantissa, exponent] = value.toExponential(kind === "g" ? digits - 1 : +digits).split("e");
  const power = `e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
  if (kind === "e") return mantissa + power;
  if (value !== 0 && (exponent < -4 || exponent >= +digits)) return Number(mantissa) + power;
  const short = Number(value.toPrecision(+digits));
  return comma ? short.toLocaleString("en", { maximumFractionDigits: 20 }) : String(short);
}
const figure = (name, value) => written(value === null || value === undefined ? null : value * data.forms[name].scale, data.forms[name].form);
const within = (name, found) => (found ? `${figure(name, found[0])} [${figure(name, found[1])}, ${figure(name, found[2])}]` : "–");

// -- what is picked, and the address ------------------------------------------------------------------

// Of each task the conditions that most rows ran under; of all backends the one with the most rows.
const most = (names, count) => names.reduce((best, name) => (best === null || count(name) > count(best) ? name : best), null);
const base = (task) => task.split(" ")[0];
const usual = {
  task: [...new Set(data.tasks.map(base))].map((name) => most(data.tasks.filter((task) => base(task) === name), (task) => data.rows.filter((row) => row.cells[task]).length)),
  backend: most(data.backends, (backend) => data.rows.filter((row) => row.backend === backend).length) ?? "",
};
const CONTROLS = { claim: "filter-claim", family: "filter-family", device: "filter-device", text: "filter-text", cost: "scatter-cost", curve: "curve-task", by: "curve-axis", axes: "curve-scale", profile: "profile-cost", on: "profile-group", quantity: "scaling-quantity", swept: "scaling-axis", figure: "gradient-figure", of: "gradient-task" };
const first = Object.fromEntries(Object.entries(CONTROLS).map(([name, id]) => [name, $(id).value]));
const bestRules = data.rules.filter((rule, i) => i < 8 || rule === data.reference || data.highlight.includes(rule));

let state;
function parse() {
  const given = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  const known = (name, all) => given.getAll(name).filter((value) => all.includes(value));
  const all = data.rows.map((row) => row.rule);
  state = {
    task: given.has("task") ? known("task", data.tasks) : [...usual.task],
    backend: given.get("backend") === "all" ? "" : (known("backend", data.backends)[0] ?? usual.backend),
    pin: given.has("pin") ? known("pin", data.rows.map((row) => row.label)) : data.rows.filter((row) => data.highlight.includes(row.rule) && row.backend === usual.backend).map((row) => row.label),
    show: given.has("show") ? known("show", all) : [...bestRules],
    sort: known("sort", data.ranking)[0] ?? "rank",
    order: given.get("order") === "down" ? "down" : "up",
  };
  if (!state.task.length) state.task = [...usual.task];
  for (const [name, id] of Object.entries(CONTROLS)) {
    const element = $(id), value = given.get(name) ?? first[name];
    element.value = value;
    if (element.tagName === "SELECT" && element.value !== value) element.value = first[name];
  }
  $("filter-backend").value = state.backend;
  for (const box of document.querySelectorAll("#picked input")) box.checked = state.task.includes(box.value);
  return location.hash.includes("=") ? given.get("at") : decodeURIComponent(location.hash.slice(1));
}

const same = (a, b) => a.length === b.length && a.every((value) => b.includes(value));
function keep(at) {
  const found = new URLSearchParams();
  if (!same(state.task, usual.task)) state.task.forEach((task) => found.append("task", task));
  if (state.backend !== usual.backend) found.set("backend", state.backend || "all");
  state.pin.forEach((label) => found.append("pin", label));
  if (data.highlight.length && !state.pin.length) found.set("pin", "");
  if (!same(state.show, bestRules)) (state.show.length ? state.show : [""]).forEach((rule) => found.append("show", rule));
  if (state.sort !== "rank" || state.order !== "up") found.set("sort", state.sort), found.set("order", state.order);
  for (const [name, id] of Object.entries(CONTROLS)) if ($(id).value !== first[name]) found.set(name, $(id).value);
  if (at) found.set("at", at);
  const text = found.toString();
  history.replaceState(null, "", text ? `#${text}` : location.hash ? "#" : "");
}

// -- words that explain themselves ----------------------------------------------------------------------

const tip = $("tip");
let explained = null; // what the tip is about
function beside() {
  if (!explained?.isConnected) return tip.hidePopover();
  const box = explained.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const above = box.bottom + own.height + 12 > innerHeight && box.top > own.height + 8;
  tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - own.width - 8))}px`;
  tip.style.top = `${above ? box.top - own.height - 6 : box.bottom + 6}px`;
}
function say(near, text) {
  explained = near;
  if (!text) return tip.hidePopover();
  tip.textContent = text;
  tip.showPopover();
  near.setAttribute("aria-describedby", "tip");
  beside();
}
const help = (said, about, text = "?") => make("button", text, { type: "button", class: "help", "data-help": said, ...(about ? { "aria-label": about } : {}) });
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-help]");
  if (button) say(button, button.dataset.help);
});
document.addEventListener("pointerover", (event) => {
  const button = event.pointerType === "mouse" && event.target.closest?.("[data-help]");
  if (button) say(button, button.dataset.help);
});
document.addEventListener("pointerout", (event) => {
  if (event.pointerType === "mouse" && event.target.closest?.("[data-help]")) say(event.target, "");
});
document.addEventListener("focusin", (event) => {
  if (event.target.matches("[data-help]:focus-visible")) say(event.target, event.target.dataset.help);
});
addEventListener("scroll", beside, { passive: true, capture: true });

// -- standings --------------------------------------------------------------------------------------------

const known = new Map();
function figures(i) { // of one row on the picked tasks
  const key = JSON.stringify([i, state.task]);
  if (!known.has(key)) known.set(key, standing(data.rows[i], data.tasks.filter((task) => state.task.includes(task)), data, null));
  return known.get(key);
}

// The rows that compete, best first: their numbers and standings, ranked within each backend and device.
function standings() {
  const [device, family, claim] = ["device", "family", "claim"].map((name) => $(`filter-${name}`).value);
  const found = data.rows.flatMap((row, i) =>
    (!state.backend || row.backend === state.backend) && (!device || row.device === device) && (!family || row.family === family) && (!claim || row.claims.includes(claim))
      ? [{ i, row, ...figures(i) }] : []);
  for (const group of new Set(found.map(({ row }) => row.group))) rank(found.filter(({ row }) => row.group === group), data.costs);
  const score = (own) => own.scores?.iqm[0] ?? -Infinity;
  return found.sort((a, b) => (a.rank === null) - (b.rank === null) || score(b) - score(a) || a.i - b.i);
}

const ranks = (own) => (own.ranks === null ? "–" : own.ranks[0] === own.ranks[1] ? `${own.ranks[0]}` : own.ranks.join("–"));
// The rows of its group from which the intervals do not tell a row.
const alike = (own, all) => all.filter((other) => other !== own && other.ranks && other.row.group === own.row.group && other.scores.iqm[1] <= own.scores.iqm[2] && other.scores.iqm[2] >= own.scores.iqm[1]);

const list = (words) => (words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`);
function linked(rows) {
  const found = rows.flatMap(({ row }, k) => [...(k ? [k === rows.length - 1 ? " and " : ", "] : []), make("a", row.rule, { href: `#rule-${row.learner}` })]);
  return found;
}

// Who leads among rows of one group: of those that may be first, and by how much.
function leads(rows) {
  const ranges = rankRanges(rows.map((own) => own.scores.iqm.slice(1)));
  const leaders = rows.filter((_, k) => ranges[k][0] === 1);
  const scores = leaders.map((own) => own.scores.iqm[0]);
  const [low, high] = [Math.min(...scores), Math.max(...scores)].map((value) => figure("iqm", value));
  return leaders.length === 1
    ? [...linked(leaders), ` leads, score ${within("iqm", leaders[0].scores.iqm)}`]
    : [...linked(leaders), ` lead together, scores ${low === high ? low : `${low} to ${high}`}: their intervals overlap`];
}

// What a row's steps and updates cost, beside the reference of its group.
function cost(own, all) {
  const { ratio_forward: forward, ratio_bptt: ratio, algorithm_bytes: size } = own.costs;
  const other = all.find(({ row }) => row.rule === data.reference)?.costs.algorithm_bytes ?? null;
  return [
    ...(forward === null ? [] : [`a step takes ${figure("ratio_forward", forward)} × a forward pass`]),
    ...(ratio === null ? [] : [`${figure("ratio_bptt", ratio)} × ${data.reference}'s step`]),
    ...(size === null ? [] : [`an update ${figure("algorithm_bytes", size)} kB${other === null ? "" : ` (${data.reference}: ${figure("algorithm_bytes", other)} kB)`}`]),
  ].join(", ");
}

function verdict(all) {
  const groups = [...new Set(all.map(({ row }) => row.group))];
  const group = most(groups, (name) => all.filter((own) => own.rank && own.row.group === name).length);
  const own = all.filter(({ row }) => row.group === group), ranked = own.filter((one) => one.rank);
  const lines = [];
  if (!ranked.length) lines.push(["No rule has a rank here: see the notes in the table."]);
  else {
    lines.push([...leads(ranked), `. ${ranked.length} ${ranked.length === 1 ? "rule is" : "rules are"} ranked${groups.length > 1 ? ` on ${group}` : ""}.`]);
    const forward = ranked.filter(({ row }) => row.claims.includes("forward_only"));
    const mode = ["Without ", make("span", "reverse mode"), help("Reverse mode goes back through the stored steps to get gradients, as backpropagation through time does. Counted as without it are rules that claim to be forward only.", "Reverse mode: what is it?")];
    const best = most(forward, (one) => one.scores.iqm[0]);
    lines.push(best ? [...mode, " ", ...leads(forward), forward.length ? `. ${best.row.rule} has rank ${ranks(best)}; ${cost(best, own) || "its costs were not measured"}.` : "."] : [...mode, " no rule is ranked here."]);
  }
  for (const rule of data.subject) {
    const found = own.find(({ row }) => row.rule === rule);
    if (!found) lines.push([rule, " is not among the rows that are shown."]);
    else if (!found.rank) lines.push([...linked([found]), ` has no rank: ${found.unranked}.`]);
    else lines.push([...linked([found]), ` has rank ${ranks(found)} of ${ranked.length}, score ${within("iqm", found.scores.iqm)}; ${cost(found, own) || "its costs were not measured"}.`]);
  }
  $("verdict").replaceChildren(...lines.map((line) => { const item = make("li"); item.append(...line); return item; }));
}

// -- the ranking --------------------------------------------------------------------------------------------

const board = $("board"), body = board.tBodies[0];
const headers = [...board.tHead.rows[0].cells];

const VALUES = {
  rank: (own) => own.rank,
  rule: (own) => own.row.rule,
  backend: (own) => own.row.group,
  improvement: (own) => own.improvement?.[0] ?? null,
  solved: (own) => own.solved,
  note: (own) => own.remarks.join("; "),
};
const valueOf = (name, own) => (VALUES[name] ?? ((one) => (name in one.costs ? one.costs[name] : (one.scores?.[name][0] ?? null))))(own);

function whisker([value, low, high]) {
  const at = (x) => Math.round(1000 * Math.min(1, Math.max(0, (x + 0.1) / 1.2))) / 10;
  const bar = make("span", null, { class: "bar", "aria-hidden": "true" });
  bar.append(make("i", null, { style: `left:${at(low)}%;width:${Math.max(0.5, at(high) - at(low))}%` }), make("b", null, { style: `left:${at(value)}%` }));
  return bar;
}

const SHOWN = {
  rank(own, all) {
    const others = alike(own, all).map(({ row }) => row.rule);
    const quick = own.quick ? [help("fewer seeds, preset quick", "q: what is it?", "q")] : [];
    const text = make("span", ranks(own));
    return [text, ...quick, ...(others.length ? [help(`The intervals do not tell ${own.row.rule} from ${list(others)}.`, `Rank ${ranks(own)} of ${own.row.label}: why a range?`)] : [])];
  },
  rule(own) {
    const pinned = state.pin.includes(own.row.label);
    const pin = make("button", pinned ? "★" : "☆", { type: "button", class: "pin", "aria-pressed": pinned, "aria-label": `Compare ${own.row.label}`, "data-pin": own.row.label });
    return [pin, make("a", own.row.rule, { href: `#rule-${own.row.learner}` })];
  },
  backend: (own) => [own.row.device === "cpu" ? own.row.backend : own.row.group],
  iqm: (own) => (own.scores ? [`${figure("iqm", own.scores.iqm[0])} `, make("small", within("iqm", own.scores.iqm).split(" ").slice(1).join(" ")), whisker(own.scores.iqm)] : ["–"]),
  improvement(own) {
    if (!own.improvement) return ["–"];
    const [, low, high] = own.improvement;
    const sign = low > 0.5 ? "▲" : high < 0.5 ? "▼" : "";
    return [within("improvement", own.improvement), ...(sign ? [" ", make("span", sign, { role: "img", "aria-label": sign === "▲" ? "better" : "worse" })] : [])];
  },
  solved: (own) => [`${own.solved} of ${state.task.length}`],
  note: (own) => [own.unranked.startsWith("stale") ? make("strong", own.remarks.join("; "), { class: "stale" }) : own.remarks.join("; ")],
};
const shownAs = (name, own, all) => (SHOWN[name] ?? ((one) => [figure(name, valueOf(name, one))]))(own, all);

function compared(all) { // as the heads say
  const down = state.order === "down";
  return [...all].sort((a, b) => {
    const [x, y] = [a, b].map((own) => valueOf(state.sort, own));
    if (x === null || y === null || x === "" || y === "") return (x === null || x === "") - (y === null || y === ""); // what is missing comes last
    const order = typeof x === "string" ? x.localeCompare(y) : x - y;
    return down ? -order : order;
  });
}

function table(rows, all) {
  body.replaceChildren(...rows.map((own) => {
    const line = make("tr", null, { "data-row": own.i, ...(data.highlight.includes(own.row.rule) ? { class: "strong" } : {}) });
    for (const name of data.ranking) {
      const kind = name === "rule" ? "sticky" : name === "note" ? "note" : name === "backend" ? "" : "n";
      const cell = make(name === "rule" ? "th" : "td", null, { class: kind, "data-field": name, "data-value": valueOf(name, own) ?? "", ...(name === "rule" ? { scope: "row" } : {}) });
      cell.append(...shownAs(name, own, all));
      line.append(cell);
    }
    return line;
  }));
  headers.forEach((header, k) => header.setAttribute("aria-sort", data.ranking[k] !== state.sort ? "none" : state.order === "up" ? "ascending" : "descending"));
  $("none").hidden = rows.length > 0;
  const groups = new Set(all.map(({ row }) => (row.device === "cpu" ? row.backend : row.group)));
  board.classList.toggle("one", groups.size < 2); // a column that says the same in each row is in the count
  $("count").textContent = `${rows.length} of ${data.rows.length} rows${groups.size === 1 ? `, ${[...groups][0]}` : ""}${state.task.length < data.tasks.length ? `; ${state.task.length} of ${data.tasks.length} tasks` : ""}`;
}

for (const button of board.tHead.querySelectorAll("[data-column]")) {
  button.addEventListener("click", () => {
    const start = button.dataset.first === "desc" ? "down" : "up";
    state.order = state.sort === button.dataset.column && state.order === start ? (start === "down" ? "up" : "down") : start;
    state.sort = button.dataset.column;
    update();
  });
}

// -- the heat map -------------------------------------------------------------------------------------------

const heat = $("heat"), heatLines = new Map([...heat.tBodies[0].rows].map((line) => [Number(line.dataset.row), line]));
function heatMap(rows) {
  const shown = new Set(rows.map((own) => own.i));
  heat.tBodies[0].append(...rows.map((own) => heatLines.get(own.i)));
  for (const [i, line] of heatLines) line.hidden = !shown.has(i);
  for (const line of heat.rows) data.tasks.forEach((task, k) => { line.cells[k + 1].hidden = !state.task.includes(task); });
  for (const cell of heat.querySelectorAll("td")) cell.tabIndex = -1;
  const start = heat.querySelector("tbody tr:not([hidden]) td:not([hidden])");
  if (start) start.tabIndex = 0;
}
heat.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!step || event.target.tagName !== "TD") return;
  event.preventDefault();
  const lines = [...heat.tBodies[0].rows].filter((line) => !line.hidden);
  const cells = lines.map((line) => [...line.cells].filter((cell) => cell.tagName === "TD" && !cell.hidden));
  const y = cells.findIndex((line) => line.includes(event.target)), x = cells[y].indexOf(event.target);
  const next = cells[y + step[0]]?.[x + step[1]];
  if (!next) return;
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
});

// -- side by side -------------------------------------------------------------------------------------------

function sideBySide(all) {
  const pinned = state.pin.flatMap((label) => all.filter(({ row }) => row.label === label));
  $("compare").hidden = !pinned.length;
  const found = $("pinned"), tasks = data.tasks.filter((task) => state.task.includes(task));
  found.replaceChildren();
  if (!pinned.length) return;
  const head = found.createTHead().insertRow();
  head.append(make("th", "Figure", { scope: "col", class: "sticky" }));
  for (const { row } of pinned) head.append(make("th", row.label, { scope: "col", class: "n" }));
  const inside = found.createTBody();
  const line = (name, cell) => {
    const one = inside.insertRow();
    one.append(make("th", name, { scope: "row", class: "sticky" }));
    for (const own of pinned) { const place = make("td", null, { class: "n" }); place.append(...[cell(own)].flat()); one.append(place); }
  };
  line("Rank", ranks);
  line("Score", (own) => within("iqm", own.scores?.iqm));
  if (pinned.length > 1) {
    line(`P(> ${pinned[0].row.label})`, (own) => {
      const common = tasks.filter((task) => !data.unscaled.includes(task) && own.row.cells[task]?.runs.length && pinned[0].row.cells[task]?.runs.length);
      const side = (row) => common.map((task) => stratum(row.cells[task], data.bounds));
      return own === pinned[0] || !common.length ? "–" : within("improvement", improvement(side(own.row), side(pinned[0].row), data.draws));
    });
  }
  line("Solved", (own) => SHOWN.solved(own));
  for (const name of data.costs) line(`${data.forms[name].label}${data.forms[name].unit ? `, ${data.forms[name].unit}` : ""}`, (own) => figure(name, own.costs[name]));
  for (const task of tasks) line(task, (own) => heatLines.get(own.i).cells[data.tasks.indexOf(task) + 1].textContent);
}
board.addEventListener("click", (event) => {
  const label = event.target.closest("[data-pin]")?.dataset.pin;
  if (!label) return;
  state.pin = state.pin.includes(label) ? state.pin.filter((one) => one !== label) : [...state.pin, label];
  update();
  body.querySelector(`[data-pin="${CSS.escape(label)}"]`)?.focus();
});
$("unpin").addEventListener("click", () => { state.pin = []; update(); });

// -- rules in the charts ------------------------------------------------------------------------------------

const stroke = (rule) => data.strokes[rule];
const legend = new Map(data.rules.map((rule) => {
  const [colour, dash] = stroke(rule);
  const label = make("label"), box = make("input", null, { type: "checkbox", value: rule });
  const sample = shape("svg", { width: 28, height: 12, "aria-hidden": "true" });
  sample.append(shape("line", { x1: 1, x2: 27, y1: 6, y2: 6, stroke: colour, "stroke-width": 3, "stroke-dasharray": dash[1] ? dash.join(" ") : "none" }));
  label.append(box, sample, rule);
  $("legend").append(label);
  box.addEventListener("change", () => show(data.rules.filter((one) => legend.get(one).checked)));
  return [rule, box];
}));
function show(rules) {
  state.show = rules;
  update();
}
$("show-best").addEventListener("click", () => show([...bestRules]));
$("show-all").addEventListener("click", () => show([...data.rules]));
$("show-none").addEventListener("click", () => show([]));
const strokes = ["thick line or circle", "thin line or square", "finest line or triangle"];
$("strokes").textContent = data.backends.length > 1 ? data.backends.map((backend, i) => `${backend}: ${strokes[i % strokes.length]}`).join("; ") + "." : "";

// -- score against cost -------------------------------------------------------------------------------------

function scatterChart(rows) {
  const name = $("scatter-cost").value, { label, scale, unit } = data.forms[name];
  const drawn = rows.filter((own) => own.complete && own.scores && own.costs[name] > 0);
  $("chart-scatter").hidden = !drawn.length;
  if (!drawn.length) {
    $("scatter-caption").textContent = "No rule to draw: none that is picked has a score on all these tasks and this cost, as where costs were not measured. Notes in the table name other reasons.";
    return;
  }
  const several = new Set(drawn.map(({ row }) => row.group)).size > 1;
  scatter($("chart-scatter"), drawn.map((own) => ({
    x: own.costs[name] * scale, y: own.scores.iqm[0], low: Number.isFinite(own.scores.iqm[1]) ? own.scores.iqm[1] : null, high: Number.isFinite(own.scores.iqm[2]) ? own.scores.iqm[2] : null,
    name: several ? own.row.label : own.row.rule, colour: stroke(own.row.rule)[0], mark: data.backends.indexOf(own.row.backend), front: own.front[name],
    strong: data.highlight.includes(own.row.rule) || data.subject.includes(own.row.rule), href: `#rule-${own.row.learner}`,
    said: `score ${within("iqm", own.scores.iqm)}, rank ${ranks(own)}, ${label} ${figure(name, own.costs[name])}${unit ? ` ${unit}` : ""}${own.front[name] ? ", on the front" : ""}`,
  })), `${label}${unit && unit !== label ? `, ${unit}` : ""} (logarithmic; left is cheaper)`, "score", say);
  $("scatter-caption").textContent = `Normalised score on ${state.task.length} ${state.task.length === 1 ? "task" : "tasks"}: 0 is trivial, 1 is solved; lines are 95 % intervals. Grey: the front, from which no rule is both better and cheaper.`;
}
new ResizeObserver(() => { if (latest) scatterChart(latest); }).observe($("scatter"));

// -- charts -------------------------------------------------------------------------------------------------

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
    asTable(element, []);
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
  else asTable(element, values);
}

// The same figures as a table, made when it is opened.
function asTable(element, values) {
  const figure = element.closest("figure");
  figure.querySelector("details")?.remove();
  if (!values.length) return;
  const details = make("details");
  details.append(make("summary", "As a table"));
  details.addEventListener("toggle", () => {
    if (!details.open || details.querySelector("table")) return;
    const columns = Object.keys(values[0]).filter((name) => !["row", "place", "trivial", "solved", "colour", "dash", "width"].includes(name));
    const found = make("table");
    const head = found.createTHead().insertRow();
    columns.forEach((name) => head.append(make("th", name.replaceAll("_", " "), { scope: "col" })));
    const inside = found.createTBody();
    for (const value of values) {
      const line = inside.insertRow();
      columns.forEach((name) => line.append(make("td", value[name] ?? "–")));
    }
    const scroll = make("div", null, { class: "scroll", tabindex: "0", role: "region", "aria-label": `Figures of the chart: ${figure.closest("section").querySelector("h2").textContent}` });
    scroll.append(found);
    details.append(scroll);
  });
  figure.append(details);
}

const painted = (rule, backend) => ({ colour: stroke(rule)[0], dash: stroke(rule)[1], width: data.widths[backend] });
const about = (i) => ({ row: i, rule: data.rows[i].rule, backend: data.rows[i].backend, ...painted(data.rows[i].rule, data.rows[i].backend) });

function curves(shown) {
  const task = $("curve-task").value, axis = $("curve-axis").value, scale = $("curve-scale").value;
  const own = data.curves[task], flops = data.costs.indexOf("flops_per_step");
  const at = (i, step, seconds) => (axis === "step" ? step : axis === "seconds" ? seconds : step * data.rows[i].cells[task].costs[flops]);
  const lines = own.lines.filter(([i]) => shown.has(i) && (axis !== "flops" || data.rows[i].cells[task].costs[flops] > 0));
  const positive = (value) => value === null || value > 0;
  const values = lines.flatMap(([i, steps, seconds, median, low, high]) =>
    steps.map((step, k) => ({ ...about(i), [axis]: at(i, step, seconds[k]), median: median[k], low: low[k], high: high[k], trivial: own.trivial, solved: own.solved })))
    .filter((value) => (!scale.includes("x") || value[axis] > 0) && (!scale.includes("y") || (positive(value.median) && positive(value.low))));
  const domain = [...own.domain];
  const ends = lines.map(([i, , , median]) => [i, median.at(-1)]);
  const outside = ([, end]) => end === null || end < domain[0] || end > domain[1];
  const numbers = ends.map(([, end]) => end).filter((end) => end !== null);
  if (numbers.length && ends.every(outside)) { // then the best of them counts
    const least = own.direction === "min";
    const best = Math[least ? "min" : "max"](...numbers);
    domain[least ? 1 : 0] = best + 0.03 * (best - domain[least ? 0 : 1]);
  }
  if (scale.includes("y") && domain[0] <= 0) domain[0] = Math.min(...values.map((value) => value.median).filter((value) => value > 0), domain[1]) / 1.1;
  const beyond = ends.filter(outside).map(([i]) => data.rows[i].label);
  $("curve-caption").textContent =
    `${own.metric} on ${task}, ${own.direction === "min" ? "lower" : "higher"} is better: median over runs, band from quartile to quartile` +
    (own.trivial === null ? "" : "; dashed grey: the trivial predictor") + (own.solved === null ? "" : "; dotted grey: solved") + "." +
    (beyond.length ? ` Worse than the axis shows at the end: ${beyond.join(", ")}.` : "");
  return chart("chart-curves", `curves_${axis}`, values, task, (specification) => {
    specification.params.find((parameter) => parameter.name === "domain").value = domain;
    specification.layer = specification.layer.filter((layer) => own[layer.name] !== null);
    for (const { encoding } of specification.layer) {
      for (const way of ["x", "y"]) {
        if (!scale.includes(way) || !encoding[way]) continue;
        const { zero, ...rest } = encoding[way].scale ?? {}; // no logarithmic axis has a zero
        encoding[way].scale = { ...rest, type: "log" };
      }
    }
    // Many bands over each other hide the lines.
    if (shown.size > 20) specification.layer[0].mark.opacity = 0;
  });
}

function profile(shown, all) {
  const rows = all.filter(({ row }) => row.group === $("profile-group").value);
  const name = $("profile-cost").value, field = data.profiles[name];
  const of = (cell) => ({ steps_to_target: cell.steps, seconds_to_target: cell.seconds })[field] ?? (field in data.forms ? cell.costs[data.costs.indexOf(field)] : null);
  const costs = rows.map(({ row }) => state.task.map((task) => {
    const cell = row.cells[task];
    if (!cell || cell.stale || cell.steps === null || (name === "seconds" && cell.seconds === null)) return Infinity;
    const value = of(cell);
    return value === null ? Infinity : Math.max(value, 1e-9); // what is reached before the first step costs less than can be measured
  }));
  const values = [];
  if (rows.length) {
    const { tau, rho } = profiles(costs);
    rows.forEach(({ i }, k) => {
      if (!shown.has(i) || rho[k].at(-1) === 0) return;
      tau.forEach((t, m) => { if (m === 0 || m === tau.length - 1 || rho[k][m] !== rho[k][m - 1]) values.push({ ...about(i), tau: t, rho: rho[k][m] }); });
    });
  }
  return chart("chart-profile", "profile", values, name);
}

// Measurements beside training name a learner: they are shown while any row of it is.
function measured(shown) {
  const found = new Set([...shown].map((i) => `${data.rows[i].learner}\n${data.rows[i].backend}`));
  return (learner, backend) => found.has(`${learner}\n${backend}`);
}
const plain = (learner) => (learner in data.strokes ? learner : data.rows.find((row) => row.learner === learner).rule);

function scaling(shown) {
  const [axis, quantity] = [$("scaling-axis").value, $("scaling-quantity").value];
  const on = measured(shown);
  const values = data.scaling
    .filter((point) => point[2] === axis && point[3] === quantity && on(point[0], point[1]))
    .map(([learner, backend, , , size, value, exponent, claimed]) => ({ row: `${learner} ${backend}`, rule: learner, backend, ...painted(plain(learner), backend), size, value, exponent, claimed }));
  return chart("chart-scaling", "scaling", values.filter((point) => point.value > 0), `${quantity} in ${axis}`);
}

function gradients(shown) {
  const [figure, task] = [$("gradient-figure").value, $("gradient-task").value];
  const at = 5 + data.figures.indexOf(figure);
  const on = measured(shown);
  const values = data.gradients
    .filter((row) => row[2] === task && on(row[0], row[1]) && row[at][0] !== null)
    .map((row) => ({ row: `${row[0]} ${row[1]}`, rule: row[0], backend: row[1], ...painted(plain(row[0]), row[1]), point: row[3], draws: row[4], place: `${row[3]} ${row[1]}`, [figure]: row[at][0], low: row[at][1] ?? row[at][0], high: row[at][2] ?? row[at][0] }))
    .sort((a, b) => data.rules.indexOf(plain(a.rule)) - data.rules.indexOf(plain(b.rule)));
  return chart("chart-gradient", `gradient_${figure}`, values, task);
}

function charts(rows, all) {
  if (!window.vegaEmbed) return;
  document.documentElement.dataset.drawn = "no";
  const shown = new Set(rows.filter(({ row }) => state.show.includes(row.rule)).map((own) => own.i));
  const drawing = [curves(shown), profile(shown, all)];
  if (data.scaling.length) drawing.push(scaling(shown));
  if (data.gradients.length) drawing.push(gradients(shown));
  Promise.all(drawing).then(() => { document.documentElement.dataset.drawn = "yes"; });
}

// -- all of it ----------------------------------------------------------------------------------------------

let latest = null;
function update(at) {
  keep(at);
  const all = standings(), wanted = $("filter-text").value.trim().toLowerCase();
  const rows = compared(all.filter(({ row }) => `${row.rule} ${row.name}`.toLowerCase().includes(wanted)));
  latest = rows;
  for (const [rule, box] of legend) {
    box.checked = state.show.includes(rule);
    box.parentElement.hidden = !rows.some(({ row }) => row.rule === rule);
  }
  table(rows, all);
  verdict(all);
  scatterChart(rows);
  heatMap(rows);
  sideBySide(all);
  charts(rows, all);
}

for (const id of Object.values(CONTROLS)) $(id).addEventListener($(id).tagName === "SELECT" ? "change" : "input", () => update());
$("filter-backend").addEventListener("change", () => { state.backend = $("filter-backend").value; $("profile-group").value = data.rows.find((row) => row.backend === state.backend)?.group ?? $("profile-group").value; update(); });
function pick(tasks) {
  state.task = tasks.length ? tasks : [...usual.task]; // no task is every one
  for (const box of document.querySelectorAll("#picked input")) box.checked = state.task.includes(box.value);
  update();
}
for (const box of document.querySelectorAll("#picked input")) {
  box.addEventListener("change", () => pick(data.tasks.filter((task) => document.querySelector(`#picked input[value="${CSS.escape(task)}"]`).checked)));
}
for (const button of document.querySelectorAll("[data-conditions]")) {
  button.addEventListener("click", () => pick(data.tasks.filter((task) => task.split(" ").slice(1).join(" ") === button.dataset.conditions)));
}
$("tasks-all").addEventListener("click", () => pick([...data.tasks]));
const form = document.querySelector(".filters");
function clear() {
  for (const name of ["claim", "family", "device", "text"]) $(`filter-${name}`).value = "";
  $("filter-backend").value = state.backend = usual.backend;
  pick([...usual.task]);
}
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", (event) => { event.preventDefault(); clear(); });
$("none-clear").addEventListener("click", clear);

// -- downloads ------------------------------------------------------------------------------------------------

function save(name, type, content) {
  const link = make("a", null, { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
// A text that a spreadsheet would run stands behind an apostrophe, as in the tables of a version.
const quoted = (value) => {
  if (value === null || value === undefined) return "";
  const text = typeof value === "string" && /^'*[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
const csv = (lines) => lines.map((line) => line.map(quoted).join(",") + "\n").join("");
function runs() {
  const names = Object.keys(data.runs), lines = [["rule", "backend", "device", "task", ...names]];
  for (const row of data.rows) {
    for (const [task, cell] of Object.entries(row.cells)) {
      for (let i = cell.first; i < cell.first + cell.records; i++) lines.push([row.rule, row.backend, row.device, task, ...names.map((name) => data.runs[name][i])]);
    }
  }
  return csv(lines);
}
function ranking() {
  const scores = ["iqm", "median", "mean", "optimality_gap"], intervals = [...scores, "improvement"];
  const head = ["rule", "backend", "device", "best_rank", "worst_rank", ...intervals.flatMap((name) => [name, `${name}_low`, `${name}_high`]), "solved", "tasks", ...data.costs, "note"];
  return csv([head, ...latest.map((own) => [
    own.row.rule, own.row.backend, own.row.device, ...(own.ranks ?? [null, null]),
    ...scores.flatMap((name) => own.scores?.[name] ?? [null, null, null]), ...(own.improvement ?? [null, null, null]),
    own.solved, state.task.join(" + "), ...data.costs.map((name) => own.costs[name]), own.remarks.join("; "),
  ])]);
}
$("save-ranking").addEventListener("click", () => save("ranking.csv", "text/csv", ranking()));
$("save-csv").addEventListener("click", () => save("runs.csv", "text/csv", runs()));
$("save-parquet").addEventListener("click", () => save("runs.parquet", "application/octet-stream", bytes(data.parquet)));
$("save-bibtex").addEventListener("click", () => save("creditbench.bib", "application/x-bibtex", data.citation));

// -- theme, releases and rules ----------------------------------------------------------------------------------

const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
const label = () => $("theme").setAttribute("aria-pressed", String(isDark()));
$("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  label();
  update();
});
dark.addEventListener("change", () => { label(); update(); });
label();
for (const id of ["release", "cell"]) {
  $(id).addEventListener("change", () => { location.href = $(id).value + location.hash; });
}

// A rule's section, made when it is opened; its text is HTML of `_rule` in page.py, where all of it is escaped.
for (const section of document.querySelectorAll("details.rule")) {
  section.addEventListener("toggle", () => {
    if (section.open && !section.querySelector("table")) section.insertAdjacentHTML("beforeend", data.sections[section.dataset.learner]);
  });
}
// A link within the page leaves what is picked in its address.
function go(id) {
  const target = id && document.getElementById(id);
  if (!target) return;
  if (target.tagName === "DETAILS") target.open = true;
  target.scrollIntoView();
  const inside = target.querySelector("summary, h2") ?? target;
  if (!inside.matches("summary")) inside.tabIndex = -1;
  inside.focus({ preventScroll: true });
}
document.addEventListener("click", (event) => {
  const link = event.target.closest?.('a[href^="#"]');
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const id = decodeURIComponent(link.getAttribute("href").slice(1));
  keep(id);
  go(id);
});
function arrive() {
  const at = parse();
  update(at);
  go(at);
}
addEventListener("hashchange", arrive);
arrive();
window.creditbench = { data, standing, rank, written }; // for the console

// The script of the charts is large: the rest of the page is there before it.
addEventListener("vega", () => update(new URLSearchParams(location.hash.slice(1)).get("at")));
await new Promise((ready) => requestAnimationFrame(() => setTimeout(ready)));
const vega = await unpack("vega");
document.body.append(make("script", `${vega}\ndispatchEvent(new Event("vega"));`, { type: "module" }));

// Score against cost: a mark a rule with its interval, each with its name. Names keep clear of each other and
// of the marks; a name that stands off has a line to its mark.

const SVG = "http://www.w3.org/2000/svg";
const shape = (tag, attributes, text) => {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
};
const MARKS = [
  (x, y, r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`,
  (x, y, r) => `M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
  (x, y, r) => `M${x} ${y - r}l${r} ${2 * r}h${-2 * r}z`,
  (x, y, r) => `M${x} ${y - 1.3 * r}l${1.3 * r} ${1.3 * r}l${-1.3 * r} ${1.3 * r}l${-1.3 * r} ${-1.3 * r}z`,
];
const FLOOR = -0.3; // marks below stand on the lower edge, with their score in the name

// A place for each of the boxes {x, y, width, height}, whose marks are at (x, y), within the frame; lines are
// boxes too, which a name may cross where there is no other place near.
function places(boxes, frame, lines) {
  const taken = [];
  const overlap = (a, b) => Math.max(0, Math.min(a.right, b.right) - Math.max(a.left, b.left)) * Math.max(0, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));
  const marks = boxes.map(({ x, y }) => ({ left: x - 6, right: x + 6, top: y - 6, bottom: y + 6 }));
  return boxes.map(({ x, y, width, height }, own) => {
    let best = null;
    for (const reach of [9, 15, 24, 36, 50, 66, 84, 104, 126, 150]) {
      for (let k = 0; k < 16; k++) {
        const angle = (k % 2 ? -1 : 1) * Math.ceil(k / 2) * (Math.PI / 8);
        const middle = [x + Math.cos(angle) * (reach + width / 2), y - Math.sin(angle) * (reach + height / 2)];
        const box = { left: middle[0] - width / 2, right: middle[0] + width / 2, top: middle[1] - height / 2, bottom: middle[1] + height / 2, reach };
        if (box.left < frame.left || box.right > frame.right || box.top < frame.top || box.bottom > frame.bottom) continue;
        const hidden = [...taken, ...marks].reduce((sum, other) => sum + overlap(box, other), 0);
        const crossed = lines.filter((other) => overlap(box, other) > 0).length;
        // A name beside the mark of another seems to be its.
        const wide = { left: box.left - 8, right: box.right + 8, top: box.top - 2, bottom: box.bottom + 2 };
        const beside = marks.filter((other, j) => j !== own && overlap(wide, other) > 0).length;
        const cost = 100 * hidden + 40 * beside + 12 * crossed + reach;
        if (best === null || cost < best.cost) best = { ...box, cost };
      }
    }
    best ??= { left: x, right: x + width, top: y - height, bottom: y, reach: 0 }; // no room in the frame
    taken.push({ left: best.left - 2, right: best.right + 2, top: best.top, bottom: best.bottom });
    return best;
  });
}

function ticks(low, high) { // 1, 2 and 5 times powers of ten; powers alone over many of them, more within one
  const powers = Math.log10(high / low);
  const parts = powers > 2.5 ? [1] : powers > 0.8 ? [1, 2, 5] : powers > 0.4 ? [1, 1.5, 2, 3, 4, 5, 7] : [1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9];
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    found.push(...parts.map((part) => Number((part * 10 ** power).toPrecision(3))).filter((value) => value >= low && value <= high));
  }
  return found;
}

// points: {x, y, low, high, name, colour, mark, front, strong, href, said}
function scatter(element, points, xTitle, yTitle, say) {
  const width = Math.max(280, element.clientWidth), height = Math.round(Math.max(360, Math.min(520, width * 0.72)));
  const frame = { left: 46, right: width - 8, top: 10, bottom: height - 44 };
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": `Score against ${xTitle}` });
  const logs = points.map((point) => Math.log10(point.x));
  const margin = Math.max(0.08, 0.06 * (Math.max(...logs) - Math.min(...logs)));
  const [left, right] = [Math.min(...logs) - margin, Math.max(...logs) + margin];
  const bottom = Math.max(FLOOR, Math.min(...points.map((point) => Math.min(point.y, point.low ?? point.y)))) - 0.05;
  const top = Math.max(...points.map((point) => Math.max(point.y, point.high ?? point.y)), bottom + 0.2) + 0.03;
  const across = (x) => frame.left + ((Math.log10(x) - left) / (right - left)) * (frame.right - frame.left);
  const up = (y) => frame.bottom - ((Math.min(Math.max(y, bottom + 0.02), top) - bottom) / (top - bottom)) * (frame.bottom - frame.top);

  for (const x of ticks(10 ** left, 10 ** right)) {
    svg.append(shape("line", { x1: across(x), x2: across(x), y1: frame.top, y2: frame.bottom, class: "grid" }));
    svg.append(shape("text", { x: across(x), y: frame.bottom + 16, "text-anchor": "middle" }, x >= 1e6 ? x.toExponential(0).replace("e+", "e") : x.toLocaleString("en")));
  }
  for (let k = Math.ceil(bottom / 0.2); k * 0.2 <= top; k++) {
    svg.append(shape("line", { x1: frame.left, x2: frame.right, y1: up(k * 0.2), y2: up(k * 0.2), class: "grid" }));
    svg.append(shape("text", { x: frame.left - 6, y: up(k * 0.2) + 4, "text-anchor": "end" }, (k * 0.2).toFixed(1)));
  }
  svg.append(shape("text", { x: (frame.left + frame.right) / 2, y: height - 8, "text-anchor": "middle", class: "title" }, xTitle));
  svg.append(shape("text", { x: -(frame.top + frame.bottom) / 2, y: 12, transform: "rotate(-90)", "text-anchor": "middle", class: "title" }, yTitle));

  const edge = points.filter((point) => point.front).sort((a, b) => a.x - b.x);
  if (edge.length > 1) {
    const path = edge.map((point, i) => (i ? `H${across(point.x)}V${up(point.y)}` : `M${across(point.x)} ${up(point.y)}`));
    svg.append(shape("path", { d: path.join(""), class: "front" }));
  }
  const sorted = [...points].sort((a, b) => b.y - a.y);
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const text = (point) => (point.y < bottom ? `${point.name} ↓ ${point.y.toFixed(2)}` : point.name);
  const boxes = sorted.map((point) => ({ x: across(point.x), y: up(point.y), width: pen.measureText(text(point)).width + 2, height: 14 }));
  const lines = sorted.flatMap((point) => (point.low === null || point.high === null ? [] : [{ left: across(point.x) - 1, right: across(point.x) + 1, top: up(point.high), bottom: up(point.low) }]));
  edge.slice(1).forEach((point, i) => {
    const [x, y] = [across(edge[i].x), up(edge[i].y)];
    lines.push({ left: x, right: across(point.x), top: y - 1, bottom: y + 1 }, { left: across(point.x) - 1, right: across(point.x) + 1, top: up(point.y), bottom: y });
  });
  const found = places(boxes, frame, lines);
  sorted.forEach((point) => {
    if (point.low !== null && point.high !== null) {
      svg.append(shape("line", { x1: across(point.x), x2: across(point.x), y1: up(point.low), y2: up(point.high), stroke: point.colour, class: "whisker" }));
    }
  });
  sorted.forEach((point, i) => {
    const { x, y } = boxes[i], place = found[i];
    const link = shape("a", { href: point.href, "aria-label": `${text(point)}: ${point.said}`, class: point.strong ? "mark strong" : "mark" });
    if (place.reach > 20) {
      const near = [Math.min(Math.max(x, place.left), place.right), Math.min(Math.max(y, place.top), place.bottom)];
      link.append(shape("line", { x1: x, y1: y, x2: near[0], y2: near[1], class: "leader" }));
    }
    link.append(shape("circle", { cx: x, cy: y, r: 12, class: "target" }));
    link.append(shape("path", { d: MARKS[point.mark % MARKS.length](x, y, point.strong ? 6.5 : 5), fill: point.colour }));
    link.append(shape("text", { x: place.left + 1, y: place.bottom - 3 }, text(point)));
    for (const event of ["focus", "pointerenter"]) link.addEventListener(event, () => say(link, `${point.name}: ${point.said}`));
    for (const event of ["blur", "pointerleave"]) link.addEventListener(event, () => say(link, ""));
    svg.append(link);
  });
  element.replaceChildren(svg);
}

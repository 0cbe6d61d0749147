// The statistics of creditbench/leaderboard/statistics.py and board.py, from the runs that the page has.
// A stratum is one task: {runs, clipped, unit, units}, its runs [n], the unit of each, and how many units.

// Numbers in [0, 1), the same in each browser (mulberry32).
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// The quantile of sorted numbers, linear between them.
function quantile(sorted, q) {
  const at = q * (sorted.length - 1), below = Math.floor(at);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (at - below);
}

const total = (values) => values.reduce((sum, value) => sum + value, 0);

function logGamma(x) { // Lanczos
  const c = [76.18009172947146, -86.50532032941677, 24.01409824083091, -1.231739572450155, 1.208650973866179e-3, -5.395239384953e-6];
  const sum = c.reduce((s, value, i) => s + value / (x + 1 + i), 1.000000000190015);
  return Math.log(2.5066282746310005 * sum / x) + (x + 0.5) * Math.log(x + 5.5) - (x + 5.5);
}

// The regularised incomplete beta function, by its continued fraction.
function incompleteBeta(x, a, b) {
  if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(1 - x, b, a);
  let [c, d, h] = [1, 1 / (1 - ((a + b) * x) / (a + 1)), 1 / (1 - ((a + b) * x) / (a + 1))];
  for (let m = 1; m < 300; m++) {
    for (const term of [(m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m)), (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1))]) {
      d = 1 / (1 + term * d);
      c = 1 + term / c;
      h *= c * d;
    }
    if (Math.abs(c * d - 1) < 1e-12) break;
  }
  const front = Math.exp(logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log(1 - x));
  return (front * h) / a;
}

// The part of the normal distribution below the point that Student's t with df leaves `tail` below.
function widened(tail, df) {
  let [low, high] = [0, 1]; // df / (df + t²) at which half of the function is the tail
  for (let i = 0; i < 200; i++) {
    const middle = (low + high) / 2;
    if (incompleteBeta(middle, df / 2, 0.5) / 2 < tail) low = middle;
    else high = middle;
  }
  const t = Math.sqrt(df / low - df);
  let area = 0; // of the normal density from 0 to t, by Simpson's rule
  const end = Math.min(t, 12), steps = 2000;
  for (let i = 0; i <= steps; i++) area += (i === 0 || i === steps ? 1 : i % 2 ? 4 : 2) * Math.exp(-(((end * i) / steps) ** 2) / 2);
  return Math.max(0, 0.5 - (area * end) / steps / 3 / Math.sqrt(2 * Math.PI));
}

// Degrees of freedom of the spread between units (Satterthwaite 1946); 0 if a stratum has a single one.
function degrees(strata, value) {
  if (strata.some((stratum) => stratum.units < 2)) return 0;
  const v = strata.map((stratum) => {
    const sums = new Float64Array(stratum.units), counts = new Float64Array(stratum.units);
    stratum.unit.forEach((unit, i) => { sums[unit] += value(stratum, i); counts[unit] += 1; });
    const means = sums.map((sum, unit) => sum / counts[unit]);
    const middle = total(means) / means.length;
    return total(means.map((mean) => (mean - middle) ** 2)) / (means.length - 1) / means.length;
  });
  const squares = total(v.map((own, i) => own ** 2 / (strata[i].units - 1)));
  return squares > 0 ? total(v) ** 2 / squares : total(strata.map((stratum) => stratum.units - 1));
}

function percentiles(drawn, df, confidence = 0.95) {
  if (df === 0) return [-Infinity, Infinity];
  const tail = widened((1 - confidence) / 2, df), sorted = drawn.sort();
  return [quantile(sorted, tail), quantile(sorted, 1 - tail)];
}

// Where the units of each stratum begin in a list of the units of all; the last is their number.
const starts = (strata) => strata.reduce((found, stratum) => [...found, found.at(-1) + stratum.units], [0]);

// One draw of U - 1 of the U units of each stratum, into the weight of each unit.
function draw(begins, weights, random) {
  weights.fill(0);
  for (let m = 0; m + 1 < begins.length; m++) {
    const units = begins[m + 1] - begins[m], size = Math.max(1, units - 1);
    for (let k = 0; k < size; k++) weights[begins[m] + Math.floor(random() * units)] += units / size;
  }
}

// iqm, median, mean and optimality gap of the strata, each [value, low, high].
function aggregates(strata, draws) {
  const begins = starts(strata), units = begins.at(-1);
  const runs = strata.flatMap((stratum, m) => [...stratum.clipped].map((value, i) => [value, begins[m] + stratum.unit[i]]));
  runs.sort((a, b) => a[0] - b[0]);
  const sorted = Float64Array.from(runs, (run) => run[0]), unit = Int32Array.from(runs, (run) => run[1]);
  const counts = new Float64Array(units), sums = new Float64Array(units), short = new Float64Array(units);
  sorted.forEach((value, i) => { counts[unit[i]] += 1; sums[unit[i]] += value; short[unit[i]] += Math.min(value, 1); });
  const part = Math.floor(runs.length / 4) / runs.length, means = new Float64Array(strata.length);

  function all(weights) {
    let whole = 0, mean = 0, gap = 0;
    for (let m = 0; m < means.length; m++) {
      let weight = 0, sum = 0, least = 0;
      for (let u = begins[m]; u < begins[m + 1]; u++) {
        weight += weights[u] * counts[u];
        sum += weights[u] * sums[u];
        least += weights[u] * short[u];
      }
      whole += weight;
      means[m] = sum / weight;
      mean += means[m] / means.length;
      gap += least / weight / means.length;
    }
    const low = part * whole, high = (1 - part) * whole;
    let upto = 0, before = low, kept = 0;
    for (let i = 0; i < sorted.length && before < high; i++) {
      upto += weights[unit[i]];
      if (upto <= low) continue;
      const inside = Math.min(upto, high);
      kept += (inside - before) * sorted[i];
      before = inside;
    }
    return [kept / (high - low), quantile(Float64Array.from(means).sort(), 0.5), mean, 1 - gap];
  }

  const weights = new Float64Array(units), values = all(weights.fill(1)), random = generator(0);
  const drawn = values.map(() => new Float64Array(draws));
  for (let k = 0; k < draws; k++) {
    draw(begins, weights, random);
    all(weights).forEach((value, i) => { drawn[i][k] = value; });
  }
  // Scores beyond the quartiles move the interquartile mean as the quartiles themselves would.
  const low = quantile(sorted, 0.25), high = quantile(sorted, 0.75);
  const bounds = [[low, high], null, null, [-Infinity, 1]];
  const found = {};
  ["iqm", "median", "mean", "optimality_gap"].forEach((name, i) => {
    const [least, most] = bounds[i] ?? [-Infinity, Infinity];
    let df = degrees(strata, (stratum, k) => Math.min(Math.max(stratum.clipped[k], least), most));
    // The half that is left out adds no degrees (Tukey & McLaughlin 1963).
    if (name === "iqm") df = Math.min(df, total(strata.map((stratum) => stratum.units - 1)) / 2);
    found[name] = [values[i], ...percentiles(drawn[i], df)];
  });
  return found;
}

// P(X > Y): mean over tasks of U / (m n), a tie counted as half, with its interval.
function improvement(x, y, draws) {
  const mine = starts(x), theirs = starts(y);
  const wins = (v, w) => (v > w) + (v === w) / 2;
  // Wins of each unit of x over each of y, and their runs.
  const won = x.map((one, m) => {
    const found = Array.from({ length: one.units }, () => new Float64Array(y[m].units));
    one.runs.forEach((v, i) => y[m].runs.forEach((w, j) => { found[one.unit[i]][y[m].unit[j]] += wins(v, w); }));
    return found;
  });
  const sizes = (strata, begins) => {
    const found = new Float64Array(begins.at(-1));
    strata.forEach((stratum, m) => stratum.unit.forEach((unit) => { found[begins[m] + unit] += 1; }));
    return found;
  };
  const own = sizes(x, mine), other = sizes(y, theirs);
  function all(a, b) {
    let sum = 0;
    for (let m = 0; m < won.length; m++) {
      let runs = 0, others = 0, beaten = 0;
      for (let v = theirs[m]; v < theirs[m + 1]; v++) others += b[v] * other[v];
      for (let u = mine[m]; u < mine[m + 1]; u++) {
        if (a[u] === 0) continue;
        runs += a[u] * own[u];
        const line = won[m][u - mine[m]];
        for (let v = 0; v < line.length; v++) beaten += a[u] * b[theirs[m] + v] * line[v];
      }
      sum += beaten / runs / others;
    }
    return sum / won.length;
  }
  const a = new Float64Array(own.length), b = new Float64Array(other.length), random = generator(0);
  const value = all(a.fill(1), b.fill(1)), drawn = new Float64Array(draws);
  for (let k = 0; k < draws; k++) {
    draw(mine, a, random), draw(theirs, b, random);
    drawn[k] = all(a, b);
  }
  // The share of the other side's runs that each run beats.
  const beats = (one, others) => ({ ...one, share: Float64Array.from(one.runs, (v) => total(Array.from(others.runs, (w) => wins(v, w))) / others.runs.length) });
  const shares = x.flatMap((one, m) => [beats(one, y[m]), beats(y[m], one)]);
  return [value, ...percentiles(drawn, degrees(shares, (stratum, i) => stratum.share[i]))];
}

// Of each row, the best and the worst rank that the intervals [low, high] allow.
function rankRanges(intervals) {
  return intervals.map(([low, high]) => [
    1 + intervals.filter((other) => other[0] > high).length,
    intervals.length - intervals.filter((other) => other[1] < low).length,
  ]);
}

// Which points [cost, score] no other is as cheap and as good as, and better than in one; null is on none.
function front(points) {
  return points.map((own) => own !== null && !points.some((other) => other !== null
    && other[0] <= own[0] && other[1] >= own[1] && (other[0] < own[0] || other[1] > own[1])));
}

// Performance profiles: τ and ρ(τ) of each row, from costs [row][task], Infinity where there is none.
function profiles(costs) {
  const best = costs[0].map((_, j) => Math.min(...costs.map((own) => own[j])));
  const ratios = costs.map((own) => own.map((cost, j) => (Number.isFinite(cost) ? cost / best[j] : Infinity)));
  const tau = [...new Set([1, ...ratios.flat().filter(Number.isFinite)])].sort((a, b) => a - b);
  tau.push(1.2 * tau.at(-1));
  return { tau, rho: ratios.map((own) => tau.map((t) => own.filter((ratio) => ratio <= t * (1 + 1e-12)).length / own.length)) };
}

// -- the board of some of its tasks -----------------------------------------------------------------------

// The runs of a cell as a stratum; null if it has none.
function stratum(cell, bounds) {
  if (!cell?.runs.length) return null;
  const unit = cell.sizes.flatMap((size, u) => Array(size).fill(u));
  return { runs: cell.runs, clipped: cell.runs.map((v) => Math.min(Math.max(v, bounds[0]), bounds[1])), unit, units: cell.sizes.length };
}

// Why a row has no rank on these tasks; empty if it has one.
function unranked(row, tasks, board) {
  const own = tasks.filter((task) => row.cells[task]), missing = tasks.filter((task) => !row.cells[task]);
  if (!own.length) return row.alone ? `run by itself alone: ${row.alone}` : `not run on ${missing.join(", ")}`;
  if (missing.length > own.length) return `run on ${own.join(", ")} alone`;
  if (missing.length) return `not run on ${missing.join(", ")}`;
  for (const task of own) {
    const cell = row.cells[task];
    if (cell.stale) return `stale: ${cell.stale}`;
    if (cell.metrics < cell.records) return `${task}: ${cell.status}`;
  }
  if (own.every((task) => board.unscaled.includes(task))) return "no task here has a normalised score: see the places within the tasks";
  const seeds = Math.min(...own.map((task) => row.cells[task].metrics)), quick = own.every((task) => row.cells[task].quick);
  const needed = quick ? board.seeds.quick : board.seeds.full;
  return seeds < needed ? `${seeds} ${seeds === 1 ? "seed" : "seeds"}: a rank takes ${needed}` : "";
}

function remarks(row, tasks, board, reason) {
  const own = tasks.filter((task) => row.cells[task]), cells = own.map((task) => row.cells[task]);
  const diverged = total(cells.map((cell) => cell.diverged));
  const outside = (v) => v < board.bounds[0] || v > board.bounds[1];
  const beyond = total(cells.filter((cell) => cell.normalises).map((cell) => cell.runs.filter(outside).length)) - diverged;
  const untuned = own.filter((task) => row.cells[task].untuned);
  const found = row.submission ? [row.submission] : [];
  if (diverged) found.push(`${diverged} ${diverged === 1 ? "run" : "runs"} diverged`);
  if (beyond > 0) found.push(`${beyond} beyond ±${board.bounds[1]}`);
  if (untuned.length) found.push(`no point of tuning beat trivial on ${untuned.join(", ")}`);
  return reason ? [...found, reason] : found;
}

// The figures of one row on some of the board's tasks: what `Standing` has, but for its rank.
function standing(row, tasks, board, draws) {
  const scaled = tasks.filter((task) => !board.unscaled.includes(task));
  const strata = new Map(scaled.flatMap((task) => (row.cells[task]?.runs.length ? [[task, stratum(row.cells[task], board.bounds)]] : [])));
  const reference = board.rows.find((other) => other.rule === board.reference && other.backend === row.backend && other.device === row.device);
  const common = [...strata.keys()].filter((task) => reference?.cells[task]?.runs.length);
  const whole = tasks.length === board.tasks.length && draws === null;
  const reason = unranked(row, tasks, board);
  const costs = Object.fromEntries(board.costs.map((name, i) => {
    const values = tasks.map((task) => row.cells[task]?.costs[i]).filter((value) => value > 0);
    return [name, values.length ? Math.exp(total(values.map(Math.log)) / values.length) : null];
  }));
  return {
    scores: whole ? row.scores : strata.size ? aggregates([...strata.values()], draws ?? board.draws) : null,
    improvement: whole ? row.improvement : common.length && row !== reference
      ? improvement(common.map((task) => strata.get(task)), common.map((task) => stratum(reference.cells[task], board.bounds)), draws ?? board.draws) : null,
    solved: tasks.filter((task) => row.cells[task]?.steps != null).length,
    complete: scaled.every((task) => strata.has(task)) && !tasks.some((task) => row.cells[task]?.stale),
    quick: !reason && Math.min(...tasks.map((task) => row.cells[task].metrics)) < board.seeds.full,
    costs,
    unranked: reason,
    remarks: remarks(row, tasks, board, reason),
  };
}

// Gives the standings of rows that compete with each other their ranks, and the rules on the fronts.
function rank(standings, costs) {
  const ranked = standings.filter((own) => !own.unranked);
  const ranges = rankRanges(ranked.map((own) => own.scores.iqm.slice(1)));
  standings.forEach((own) => { own.rank = own.ranks = null; own.front = {}; });
  ranked.forEach((own, i) => {
    own.rank = 1 + ranked.filter((other) => other.scores.iqm[0] > own.scores.iqm[0]).length;
    own.ranks = ranges[i];
  });
  for (const name of costs) {
    const points = standings.map((own) => (own.complete && own.scores && own.costs[name] !== null ? [own.costs[name], own.scores.iqm[0]] : null));
    front(points).forEach((on, i) => { standings[i].front[name] = on; });
  }
}

// What a report has in itself: it answers as the server does, from the rows that it has.

const UNITS = { ns: 1, us: 1e3, "µs": 1e3, ms: 1e6, "": 1e6, s: 1e9 };
const STEPS = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8]; // of a decade, as in heatmap.py
const COLUMNS_MAX = 120;

function matches(row, term) {
  if (term === "failed") return row.failed;
  if (term === "repeated") return row.retransmissions > 0;
  const amount = /^took([<>])(\d+(?:\.\d+)?)(ns|us|µs|ms|s|)$/.exec(term);
  if (amount) return row.took !== null && (amount[1] === ">") === (row.took > amount[2] * UNITS[amount[3]]);
  if (term.startsWith("connection:")) return row.connection === Number(term.slice(11));
  return [row.what, row.status, row.state, row.client, row.server, ...(row.ends ?? []), ...(row.owners ?? [])].join(" ").toLowerCase().includes(term);
}

const KEYS = {
  first: (row) => row.first, duration: (row) => row.last - row.first,
  written: (row) => row.written[0] + row.written[1], read: (row) => row.read[0] + row.read[1],
};

const given = (value) => value !== undefined && value !== null && value !== "";

function inside(value, least, most) {
  if (!given(least) && !given(most)) return true;
  return value !== null && (!given(least) || value >= Number(least)) && (!given(most) || value <= Number(most));
}

function chosen(rows, query) {
  const terms = (query.filter ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  if (terms[0] === "where") throw new Error("A report has no expressions: look at the recording with `tcprism view`.");
  return rows.filter((row) =>
    terms.every((term) => (term.length > 1 && term.startsWith("-") ? !matches(row, term.slice(1)) : matches(row, term))) &&
    inside(row.start, query.since, query.until) && inside(row.took, query.took_least, query.took_most));
}

function windowOf(list, query) {
  const rows = chosen(list.rows, query);
  const sort = query.sort ?? "";
  const name = sort.replace("-", "");
  const key = KEYS[name] ?? ((row) => row[name] ?? -1);
  const order = (a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0) * (sort.startsWith("-") ? -1 : 1);
  if (name) rows.sort(order);
  return { total: list.total, found: rows.length, rows: rows.slice(query.first, query.first + query.count) };
}

function roundWidth(first, last) {
  for (let power = 1; ; power *= 10) {
    for (const step of [1, 2, 5]) {
      const width = step * power;
      if (Math.floor(last / width) - Math.floor(first / width) < COLUMNS_MAX) return width;
    }
  }
}

function heatmapOf(list, query) {
  const rows = chosen(list.rows, { filter: query.filter });
  const known = rows.filter((row) => row.took !== null);
  const answer = { began: [], width: 1, took: [], cells: [], unknown: rows.length - known.length };
  if (!known.length) return answer;
  const limits = [0];
  for (let power = 1; power <= 1e15; power *= 10) limits.push(...STEPS.map((step) => Math.ceil(step * power)));
  const rowOf = (took) => limits.findLastIndex((limit) => limit <= took);
  const [first, last] = known.reduce(([low, high], { start }) => [Math.min(low, start), Math.max(high, start)], [Infinity, -Infinity]);
  const [least, most] = known.reduce(([low, high], { took }) => [Math.min(low, took), Math.max(high, took)], [Infinity, 0]);
  const width = roundWidth(first, last);
  const left = Math.floor(first / width);
  const lowest = rowOf(least);
  const cells = new Map();
  for (const { start, took, failed } of known) {
    const [column, row] = [Math.floor(start / width) - left, rowOf(took) - lowest];
    const cell = cells.get(column * 1000 + row) ?? [column, row, 0, 0];
    cell[2] += 1;
    cell[3] += failed ? 1 : 0;
    cells.set(column * 1000 + row, cell);
  }
  return {
    ...answer, width, took: limits.slice(lowest, rowOf(most) + 2), cells: [...cells.values()],
    began: Array.from({ length: Math.floor(last / width) - left + 1 }, (_, column) => (left + column) * width),
  };
}

// Without expressions: it takes a server to evaluate them.
function vocabularyOf(kept, of) {
  const { terms, values } = kept.vocabulary;
  const words = Object.entries(terms).filter(([term]) => /^(failed|repeated|took|connection)/.test(term));
  if (of === "requests") return { terms: Object.fromEntries(words), columns: [], values };
  return { terms: Object.fromEntries(words.filter(([term]) => !/took|connection/.test(term))), columns: [], values: { process: values.comm } };
}

export function answerFrom(kept, name, query) {
  if (name === "requests" || name === "connections") return windowOf(kept[name], query);
  if (name === "vocabulary") return vocabularyOf(kept, query.of);
  if (name === "heatmap" && query.filter) return heatmapOf(kept.requests, query);
  const answer = query.n === undefined ? kept[name] : kept[`${name}_of`]?.[query.n];
  if (!answer && name === "explain") return { connections: [], verdicts: [], silent: 0, total: 0 };
  if (!answer) throw new Error("This report leaves its time axis out: look at the recording with `tcprism view`.");
  if (!query.since && !query.until) return answer;
  const [since, until] = [Number(query.since), Number(query.until)];
  return { ...answer, since, until, marks: answer.marks.filter((mark) => mark.t >= since && mark.t <= until) };
}

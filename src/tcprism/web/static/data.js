// Answers of the server, and news that something has changed.

export class Refused extends Error {}

// A report has the answers in itself.
const kept = document.getElementById("data");
export const embedded = kept ? JSON.parse(kept.textContent) : null;

const UNITS = { ns: 1, us: 1e3, "µs": 1e3, ms: 1e6, "": 1e6, s: 1e9 };

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

function windowOf(list, query) {
  const terms = (query.filter ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const sort = query.sort ?? "";
  const name = sort.replace("-", "");
  const key = KEYS[name] ?? ((row) => row[name] ?? -1);
  const rows = list.rows.filter((row) =>
    terms.every((term) => (term.length > 1 && term.startsWith("-") ? !matches(row, term.slice(1)) : matches(row, term))) &&
    (!query.since || row.start >= Number(query.since)) && (!query.until || row.start <= Number(query.until)));
  const order = (a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0) * (sort.startsWith("-") ? -1 : 1);
  if (name) rows.sort(order);
  return { total: list.total, found: rows.length, rows: rows.slice(query.first, query.first + query.count) };
}

function fromReport(name, query) {
  if (name === "requests" || name === "connections") return windowOf(embedded[name], query);
  const answer = query.n === undefined ? embedded[name] : embedded[`${name}_of`]?.[query.n];
  if (!answer && name === "explain") return { connections: [], verdicts: [], silent: 0, total: 0 };
  if (!answer) throw new Error("This report leaves its time axis out: look at the recording with `tcprism view`.");
  if (!query.since && !query.until) return answer;
  const [since, until] = [Number(query.since), Number(query.until)];
  return { ...answer, since, until, marks: answer.marks.filter((mark) => mark.t >= since && mark.t <= until) };
}

export async function ask(name, query = {}) {
  if (embedded) return fromReport(name, query);
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const response = await fetch(`/api/${name}?${new URLSearchParams(given)}`, { cache: "no-store" });
  if (response.status === 403) {
    throw new Refused("This address is not valid any more: tcprism has been started anew. Open the address that it printed.");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error ?? `the server says ${response.status}`);
  return answer;
}

// Calls `told` when something has changed, at most once a second, and `lost` when the server is gone.
export function follow(told, lost) {
  const source = new EventSource("/api/changes");
  let timer = null;
  source.onmessage = () => {
    timer ??= setTimeout(() => {
      timer = null;
      told();
    }, 1000);
  };
  source.onerror = () => lost(source.readyState === EventSource.CLOSED);
  return source;
}

// The first screen: what happened over time, and who is hurt.

import { ask } from "./data.js";
import { chart } from "./chart.js";
import { clock, count, counted, duration, element, size } from "./dom.js";
import { causes, who } from "./lists.js";
import { verdictList } from "./explain.js";

const rate = (bytes) => `${size(bytes)}/s`;
const CAUSES = [["fast", "again"], ["tlp", "send_queue"], ["rto", "unread"], ["syn", "network_there"], ["syn-ack", "network_back"], ["unknown", "transfer"]];

export async function overview(page, state) {
  const node = element("div", { class: "cards" });
  const verdicts = element("div", null, element("p", { class: "quiet" }, "…"));
  let shown = null;
  let explained = null;
  let limits = null;
  const draw = async () => {
    // What limits connections takes longer: the rest does not wait for it.
    limits ??= ask("explain").then((found) => {
      explained = found;
      limits = null;
      verdicts.replaceChildren(verdictList(found));
    }).catch(() => {
      limits = null;
    });
    const answer = await ask("overview");
    const { series } = answer;
    shown = answer;
    const pick = (moment, until) => page.go(`requests?since=${moment}&until=${until}`);
    const line = (title, lines, text, options) => chart({ title, series, lines, text, pick, origin_ms: page.origin_ms, ...options });
    node.replaceChildren(
      line("throughput", [["written", "send", series.sent], ["read", "recv", series.received]], rate),
      line("requests", [["requests", "accent", series.requests]], (value) => `${count(Number(value.toPrecision(3)))}/s`),
      line("round trip", [["mean", "recv", series.trip_us]], (us) => duration(us * 1000)),
      line("sent again, by cause", CAUSES.map(([name, color]) => [name, color, series.causes[name]]).filter(([, , values]) => values.some(Boolean)), (value) => counted(value, "segment"), { stacked: true }),
      line("failures", [["requests that failed", "again", series.failures], ["connections that failed", "unread", series.failed], ["resets", "send_queue", series.resets]].filter(([, , values]) => values.some(Boolean)), count, { stacked: true }),
      card("what limits connections", verdicts),
      card("slowest requests", list(answer.slowest, (row) => [
        element("b", null, duration(row.took)), element("a", { href: `#/requests/${row.n}` }, row.what), element("span", { class: "quiet" }, clock(row.start, page.origin_ms))])),
      card("connections that lost most", list(answer.repeated, (row) => [
        element("b", { class: "tag" }, causes(row)), element("a", { href: `#/connections/${row.n}` }, `${who(row, 0)} → ${who(row, 1)}`)])),
      answer.pending === null ? "" : card("requests without a response", list(answer.pending, (row) => [
        element("b", null, duration(row.took)), element("a", { href: `#/requests/${row.n}` }, row.what), element("span", { class: "quiet" }, row.waiting_for ? `waits for ${row.waiting_for}` : row.state)])),
    );
  };
  page.show("overview", [element("h1", { class: "unseen" }, "Overview"), node], true);
  await draw();
  return { changed: () => draw().catch(() => {}), exported: async () => ({ name: "overview", rows: rowsOf(shown.series), data: { ...shown, explained: explained ?? (await ask("explain")) } }) };
}

// The charts as a table: a row for each stretch of time.
function rowsOf({ t, width, causes, ...series }) {
  return t.map((since, index) => ({
    since, until: since + width,
    ...Object.fromEntries(Object.entries(series).map(([name, values]) => [name, values[index]])),
    ...Object.fromEntries(Object.entries(causes).map(([name, values]) => [`retransmitted.${name}`, values[index]])),
  }));
}

const card = (title, content) => element("section", { class: "card" }, element("h2", null, title), content);

function list(rows, write) {
  if (!rows.length) return element("p", { class: "quiet" }, "None.");
  return element("ol", { class: "rows" }, rows.map((row) => element("li", null, write(row))));
}

// What limits connections, with the numbers that prove it.

import { ask } from "./data.js";
import { count, counted, duration, element } from "./dom.js";

const percent = (share) => `${share >= 0.0995 || !share ? Math.round(100 * share) : (100 * share).toFixed(1)} %`;

export function verdictList(answer) {
  const rows = answer.verdicts.map((verdict) =>
    element("li", null, element("b", { class: verdict.accuses ? "tag" : null }, count(verdict.count)), element("a", { href: "#/explain" }, verdict.title)));
  if (answer.silent) rows.push(element("li", null, element("b", null, count(answer.silent)), element("span", { class: "quiet" }, "nothing that limits it can be proven")));
  return rows.length ? element("ol", { class: "rows" }, rows) : element("p", { class: "quiet" }, "No connection.");
}

export function proofs(one) {
  if (!one?.verdicts.length) return element("p", { class: "quiet" }, "Nothing that limits it can be proven.");
  return element("ul", { class: "proofs" }, one.verdicts.map((verdict) =>
    element("li", null, element("b", { class: verdict.accuses ? "tag" : null }, percent(verdict.share)), element("span", null, `${verdict.title}: `, element("span", { class: "quiet" }, verdict.proof)))));
}

export async function explain(page) {
  const answer = await ask("explain");
  const doubts = answer.lost ? element("p", { class: "bad" }, `${count(answer.lost)} events are missing, and what they would have proven.`) : null;
  page.show("explain", [
    element("h1", null, "What limits connections"),
    element("p", { class: "quiet" }, `${counted(answer.total, "socket")}; ${answer.snapshots ? counted(answer.snapshots, "snapshot") : "from events alone"}`),
    doubts,
    answer.connections.map((one) => element("section", { class: "card wide-card" },
      element("h2", null, one.heading, one.watched === null ? "" : element("span", { class: "quiet" }, `  watched for ${duration(one.watched)}`)),
      proofs(one))),
    answer.connections.length ? null : element("p", { class: "none" }, "Nothing that limits a connection can be proven."),
  ], true);
  return {
    exported: async () => ({
      name: "explain", data: answer,
      rows: answer.connections.flatMap(({ verdicts, ...one }) => verdicts.map((verdict) => ({ ...one, ...verdict }))),
    }),
  };
}

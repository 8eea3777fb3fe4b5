// Processes and peers as nodes, and the connections between them as edges.

import { ask } from "./data.js";
import { counted, count, drawn, duration, element, size } from "./dom.js";

const ROW = 34;
const BOX = 230;

export async function map(page) {
  const answer = await ask("map");
  const said = element("div", { class: "said", "aria-live": "polite" }, element("p", { class: "quiet" }, "Point at an edge or a node. Left asks, right answers."));
  const picture = drawn("svg", { "aria-hidden": "true" });
  const node = element("div", { class: "axis map" }, picture);
  const open = (text) => page.go(`connections?filter=${encodeURIComponent(text)}`);

  function draw(wide) {
    const box = Math.min(BOX, wide * 0.36);
    const height = Math.max(answer.clients.length, answer.servers.length, 1) * ROW + 10;
    const at = (index, nodes) => 10 + (index + 0.5) * ((height - 10) / nodes.length);
    const most = Math.max(1, ...answer.edges.map((edge) => edge.bytes));
    const parts = [];
    for (const edge of answer.edges) {
      const [y1, y2] = [at(edge.client, answer.clients), at(edge.server, answer.servers)];
      const bend = (wide - 2 * box) / 2;
      const share = edge.segments ? edge.retransmissions / edge.segments : 0;
      const line = drawn("path", {
        class: `edge${edge.retransmissions ? " lossy" : ""}`, d: `M${box} ${y1}c${bend} 0 ${bend} ${y2 - y1} ${wide - 2 * box} ${y2 - y1}`,
        "stroke-width": 1.5 + 9 * Math.sqrt(edge.bytes / most), "stroke-opacity": 0.35 + 0.65 * Math.min(1, edge.retransmissions ? 0.3 + 5 * share : 0.2),
      });
      line.addEventListener("pointerenter", () => said.replaceChildren(element("p", null, sentence(edge))));
      line.addEventListener("click", () => open(`${answer.clients[edge.client].word} ${answer.servers[edge.server].word}`));
      parts.push(line);
    }
    const nodes = (all, left) => all.forEach(({ name, word, kind }, index) => {
      const y = at(index, all);
      const room = Math.floor((box - 16) / 6.6);
      const node = drawn("rect", { class: `node ${kind}`, x: left ? 1 : wide - box - 1, y: y - 12, width: box, height: 24, rx: kind === "container" ? 0 : 6 });
      node.addEventListener("pointerenter", () => said.replaceChildren(element("p", null, `${kind} ${name}`)));
      node.addEventListener("click", () => open(word));
      parts.push(node);
      parts.push(drawn("text", { class: "node-text", x: left ? 9 : wide - box + 7, y: y + 4 }, name.length > room ? `${name.slice(0, room - 1)}…` : name));
    });
    nodes(answer.clients, true);
    nodes(answer.servers, false);
    picture.setAttribute("viewBox", `0 0 ${wide} ${height}`);
    picture.setAttribute("height", height);
    picture.replaceChildren(...parts);
  }

  const called = ({ name, kind }) => (kind === "container" ? `container ${name}` : name);

  function sentence(edge) {
    const again = edge.retransmissions ? `${counted(edge.retransmissions, "segment")} sent again` : "nothing sent again";
    const trip = edge.srtt_us === null ? "" : `, round trip ${duration(edge.srtt_us * 1000)}`;
    const asked = edge.requests ? `, ${counted(edge.requests, "request")}${edge.failures ? `, ${count(edge.failures)} failed` : ""}` : "";
    return `${called(answer.clients[edge.client])} to ${called(answer.servers[edge.server])}: ${counted(edge.connections, "connection")}, ${size(edge.bytes)}${asked}, ${again}${trip}`;
  }

  const observer = new ResizeObserver(() => draw(node.clientWidth));
  observer.observe(node);
  page.show("map", [
    element("h1", null, "Who talks to whom"),
    answer.left_out ? element("p", { class: "quiet" }, `${count(answer.left_out)} more pairs are not shown: those that moved least.`) : null,
    node,
    element("ul", { class: "legend" }, [["process", "process"], ["container", "container (all of its processes)"], ["address", "address: nobody is seen there"], ["lossy", "segments were sent again"]].map(([kind, text]) =>
      element("li", null, element("i", { class: `kind ${kind}` }), text))),
    said,
    element("h2", null, "As a list"),
    element("ul", { class: "rows" }, answer.edges.map((edge) => element("li", null, element("span", { class: edge.retransmissions ? "tag" : null }, sentence(edge))))),
  ], true);
  return {
    close: () => observer.disconnect(),
    exported: async () => ({
      name: "map", data: answer,
      rows: answer.edges.map((edge) => ({ ...edge, client: answer.clients[edge.client].name, server: answer.servers[edge.server].name })),
    }),
  };
}

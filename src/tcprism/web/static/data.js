// Answers of the server, and news that something has changed.

import { answerFrom } from "./kept.js";

export class Refused extends Error {}

// A report has the answers in itself.
const kept = document.getElementById("data");
export const embedded = kept ? JSON.parse(kept.textContent) : null;

export async function ask(name, query = {}) {
  if (embedded) return answerFrom(embedded, name, query);
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

// Requests to the server that this page comes from.

const KEY = "baco-api-key";

/** Keep an API key for this tab only. */
export const keepKey = (key) => sessionStorage.setItem(KEY, key);
export const hasKey = () => sessionStorage.getItem(KEY) !== null;

/** What the server, or the way to it, has to say against a request; `status` is 0 for the way. */
export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

async function call(path, options = {}) {
  const headers = { "Content-Type": "application/json" };
  if (hasKey()) headers.Authorization = `Bearer ${sessionStorage.getItem(KEY)}`;
  const response = await fetch(path, { ...options, headers }).catch((error) => {
    if (options.signal?.aborted) throw error;
    throw new ApiError("The server cannot be reached. Is it still running?");
  });
  if (response.ok) return response;
  if (response.status === 401) dispatchEvent(new Event("key-needed"));
  const told = await response.json().catch(() => ({}));
  const message = told.error?.message ?? `The server answered with status ${response.status}.`;
  const wait = response.headers.get("Retry-After");
  throw new ApiError(wait ? `${message} Try again in ${wait} s.` : message, response.status);
}

const ask = (body, signal) =>
  call("v1/chat/completions", { method: "POST", body: JSON.stringify(body), signal });

/** The pairs that are served. */
export const models = async () => (await (await call("v1/models")).json()).data;

/** Ask for whole answers. */
export const complete = async (body, signal) => (await ask(body, signal)).json();

/** Ask for one answer, and yield its choice's pieces as they come. */
export async function* stream(body, signal) {
  const response = await ask({ ...body, stream: true }, signal);
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(chunk.error.message);
    yield* chunk.choices;
  }
  throw new ApiError("The connection ended before the answer did.");
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const whole = (rest + value).split("\n\n");
    rest = whole.pop();
    for (const event of whole) yield event.replace(/^data: /, "");
  }
}

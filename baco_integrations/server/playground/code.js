// The request as code: never with a key in it, only with the name of a variable that holds one.

const VARIABLE = "BACO_API_KEY";

// What JSON escapes in a string, Python escapes the same way.
const quoted = (text) => JSON.stringify(text);
const inShell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function python(imports, name, base, body, keyed, call) {
  const { model, messages, ...settings } = body;
  const given = { base_url: quoted(base) };
  if (keyed) given.api_key = `os.environ["${VARIABLE}"]`;
  given.pair = quoted(model);
  for (const [key, value] of Object.entries(settings)) given[key] = quoted(value);
  const lines = Object.entries(given).map(([key, value]) => `    ${key}=${value},`);
  const head = keyed ? ["import os", "", ...imports] : imports;
  return [...head, "", `llm = ${name}(`, ...lines, ")", ...call(messages)].join("\n");
}

/** The request in LangChain. */
export function langchain(base, body, keyed) {
  const imports = ["from baco_integrations.langchain import ChatBACo"];
  return python(imports, "ChatBACo", base, body, keyed, (messages) => [
    "messages = [",
    ...messages.map(({ role, content }) => `    (${quoted(role)}, ${quoted(content)}),`),
    "]",
    "print(llm.invoke(messages).content)",
  ]);
}

/** The request in LlamaIndex. */
export function llamaindex(base, body, keyed) {
  const imports = [
    "from llama_index.core.llms import ChatMessage",
    "from baco_integrations.llama_index import BACoLLM",
  ];
  return python(imports, "BACoLLM", base, body, keyed, (messages) => [
    "messages = [",
    ...messages.map(
      ({ role, content }) => `    ChatMessage(role=${quoted(role)}, content=${quoted(content)}),`,
    ),
    "]",
    "print(llm.chat(messages).message.content)",
  ]);
}

/** The request in a shell. */
export function curl(base, body, keyed) {
  const lines = [`curl -sS ${inShell(`${base}/chat/completions`)}`];
  if (keyed) lines.push(`-H "Authorization: Bearer $${VARIABLE}"`);
  lines.push("-H 'Content-Type: application/json'", `-d ${inShell(JSON.stringify(body, null, 2))}`);
  return lines.join(" \\\n  ");
}

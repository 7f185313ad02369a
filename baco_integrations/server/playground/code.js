// The request as code: never with a key in it, only with the name of a variable that holds one.

const VARIABLE = "BACO_API_KEY";

const quoted = JSON.stringify; // what JSON escapes in a string, Python escapes the same way
const inShell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function python(imports, name, base, { model, messages, ...settings }, keyed, message, call) {
  const given = [`base_url=${quoted(base)}`, `pair=${quoted(model)}`];
  if (keyed) given.push(`api_key=os.environ["${VARIABLE}"]`);
  for (const [key, value] of Object.entries(settings)) given.push(`${key}=${quoted(value)}`);
  const listed = messages.map(({ role, content }) => message(quoted(role), quoted(content)));
  const lines = [...imports, "", `llm = ${name}(`, ...given.map((each) => `    ${each},`), ")"];
  lines.push("messages = [", ...listed.map((each) => `    ${each},`), "]", `print(${call})`);
  return (keyed ? ["import os", "", ...lines] : lines).join("\n");
}

/** The request in LangChain. */
export function langchain(base, body, keyed) {
  const imports = ["from baco_integrations.langchain import ChatBACo"];
  const message = (role, content) => `(${role}, ${content})`;
  return python(imports, "ChatBACo", base, body, keyed, message, "llm.invoke(messages).content");
}

/** The request in LlamaIndex. */
export function llamaindex(base, body, keyed) {
  const imports = [
    "from llama_index.core.llms import ChatMessage",
    "from baco_integrations.llama_index import BACoLLM",
  ];
  const message = (role, content) => `ChatMessage(role=${role}, content=${content})`;
  return python(imports, "BACoLLM", base, body, keyed, message, "llm.chat(messages).message.content");
}

/** The request in a shell. */
export function curl(base, body, keyed) {
  const lines = [`curl -sS ${inShell(`${base}/chat/completions`)}`];
  if (keyed) lines.push(`-H "Authorization: Bearer $${VARIABLE}"`);
  lines.push("-H 'Content-Type: application/json'", `-d ${inShell(JSON.stringify(body, null, 2))}`);
  return lines.join(" \\\n  ");
}

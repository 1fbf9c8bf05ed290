// Reads AsyncAPI documents, one a line, and tells what the AsyncAPI project's own parser finds wrong with each.
import { createInterface } from "node:readline";
import { Parser } from "@asyncapi/parser";

const parser = new Parser();
for await (const line of createInterface({ input: process.stdin })) {
  const found = await parser.validate(line);
  console.log(JSON.stringify(found.map((it) => ({ code: it.code, message: it.message, path: it.path.join("/") }))));
}

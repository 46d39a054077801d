// Token ids of texts by llama.cpp: node llama_cpp_tokens.mjs MODEL.gguf TEXTS.json, as JSON.
import {readFile} from "node:fs/promises";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const library = createRequire(process.env.NODE_PATH + "/").resolve("node-llama-cpp");
const {getLlama} = await import(pathToFileURL(library));
const [modelPath, textsPath] = process.argv.slice(2);
const llama = await getLlama({gpu: false, build: "never", logLevel: "error", maxThreads: 1});
const model = await llama.loadModel({modelPath});
const texts = JSON.parse(await readFile(textsPath, "utf8"));
console.log(JSON.stringify(texts.map((text) => Array.from(model.tokenize(text, true)))));
await llama.dispose();

// Greedy continuations of token ids by llama.cpp: node llama_cpp.mjs MODEL.gguf NEW_TOKENS '[[ids], ...]', as JSON.
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const library = createRequire(process.env.NODE_PATH + "/").resolve("node-llama-cpp");
const {getLlama} = await import(pathToFileURL(library));
const [modelPath, newTokens, prompts] = process.argv.slice(2);
const llama = await getLlama({gpu: false, build: "never", logLevel: "error", maxThreads: 1});
const model = await llama.loadModel({modelPath});
const found = [];
for (const ids of JSON.parse(prompts)) {
    const context = await model.createContext({contextSize: 128, threads: 1});
    const tokens = [];
    for await (const token of context.getSequence().evaluate(ids, {temperature: 0, yieldEogToken: true})) {
        tokens.push(token);
        if (tokens.length === Number(newTokens)) break;
    }
    found.push(tokens);
    await context.dispose();
}
console.log(JSON.stringify(found));
await llama.dispose();

// A folder goes up, is listed, comes down file by file: node hub.mjs HUB_URL TOKEN FOLDER DESTINATION, as JSON.
import {createRequire} from "node:module";
import {mkdir, readdir, writeFile} from "node:fs/promises";
import {dirname, join} from "node:path";
import {pathToFileURL} from "node:url";

const library = createRequire(process.env.NODE_PATH + "/").resolve("@huggingface/hub");
const hub = await import(pathToFileURL(library));
const {createRepo, uploadFiles, listFiles, downloadFile, modelInfo, whoAmI} = hub.default ?? hub;
const [hubUrl, accessToken, folder, destination] = process.argv.slice(2);
const repo = {type: "model", name: "owner/by-npm"};
const access = {hubUrl, accessToken, repo};

const user = await whoAmI({hubUrl, accessToken});
await createRepo({...access, private: true});
const names = (await readdir(folder)).sort();
const files = names.map((path) => ({path, content: pathToFileURL(join(folder, path))}));
await uploadFiles({...access, files, useXet: false, commitTitle: "A model"});
const listed = [];
for await (const file of listFiles({...access, recursive: true})) listed.push(file.path);
for (const path of listed) {
    const blob = await downloadFile({...access, path, xet: false});
    const target = join(destination, path);
    await mkdir(dirname(target), {recursive: true});
    await writeFile(target, Buffer.from(await blob.arrayBuffer()));
}
console.log(JSON.stringify({user: user.name, names, listed}));

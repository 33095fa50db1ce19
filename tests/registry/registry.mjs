#!/usr/bin/env node
// A read-only npm registry for one machine: serves a directory of packed tarballs to the real npm client.
//
//   registry.mjs DIRECTORY [PORT]
//
// The directory is read anew for every request for metadata, so that a test can add a version while it runs. Every request is
// one line on stdout. What is answered follows the registry's "package metadata" document; tarballs carry the integrity and
// shasum of the very bytes that are served.
import { createHash } from "node:crypto";
import { createReadStream, readFileSync, readdirSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { basename, join } from "node:path";
import { gunzipSync } from "node:zlib";

const directory = process.argv[2] ?? "/opt/registry/packages";
const port = Number(process.argv[3] ?? 4873);
const base = `http://127.0.0.1:${port}`;

/** Tarballs that have been read, by file name; good as long as size and time of change are the same. */
const known = new Map();

/** The file `*\/package.json` at the top of a packed tarball, and whether it brings a binding.gyp beside it. */
function manifestOf(packed) {
  const tar = gunzipSync(packed);
  let manifest;
  let gyp = false;
  for (let at = 0; at + 512 <= tar.length && tar[at] !== 0; ) {
    const name = tar.toString("utf8", at, at + 100).replace(/\0.*$/s, "");
    const size = parseInt(tar.toString("latin1", at + 124, at + 136), 8) || 0;
    const parts = name.split("/");
    if (parts.length === 2 && parts[1] === "package.json") manifest = JSON.parse(tar.toString("utf8", at + 512, at + 512 + size));
    if (parts.length === 2 && parts[1] === "binding.gyp") gyp = true;
    at += 512 + Math.ceil(size / 512) * 512;
  }
  if (!manifest) throw new Error("no package.json at its top");
  return { manifest, gyp };
}

/** One version of a package as the registry describes it, or undefined when the file is no package. */
function describe(file) {
  const path = join(directory, file);
  const { size, mtimeMs } = statSync(path);
  const before = known.get(file);
  if (before && before.size === size && before.mtimeMs === mtimeMs) return before.version;
  let version;
  try {
    const packed = readFileSync(path);
    const { manifest, gyp } = manifestOf(packed);
    const { name, scripts = {} } = manifest;
    const install = gyp || ["preinstall", "install", "postinstall"].some((script) => script in scripts);
    // The public registry adds this script too when a package brings a binding.gyp and none of its own.
    const added = gyp && !scripts.install && !scripts.preinstall ? { install: "node-gyp rebuild" } : {};
    version = {
      ...manifest,
      scripts: { ...scripts, ...added },
      _id: `${name}@${manifest.version}`,
      ...(install ? { hasInstallScript: true } : {}),
      dist: {
        tarball: `${base}/${name}/-/${file}`,
        integrity: `sha512-${createHash("sha512").update(packed).digest("base64")}`,
        shasum: createHash("sha1").update(packed).digest("hex"),
      },
    };
  } catch (error) {
    console.log(`${file}: left out: ${error.message}`);
  }
  known.set(file, { size, mtimeMs, version });
  return version;
}

/** The numbers of a version, and whether it is a release: enough to tell which one is the latest. */
function order(version) {
  const [numbers, suffix] = version.split("+")[0].split(/-(.*)/s);
  return [suffix === undefined ? 1 : 0, ...numbers.split(".").map(Number)];
}

function isNewer(a, b) {
  const [left, right] = [order(a), order(b)];
  const differs = left.findIndex((value, index) => value !== right[index]);
  return differs >= 0 && left[differs] > right[differs];
}

/** The metadata document of a package, or undefined. */
function packageDocument(name) {
  const document = { _id: name, name, "dist-tags": {}, versions: {}, time: {} };
  for (const file of readdirSync(directory).filter((file) => file.endsWith(".tgz")).sort()) {
    const version = describe(file);
    if (version?.name !== name) continue;
    document.versions[version.version] = version;
    document.time[version.version] = new Date(known.get(file).mtimeMs).toISOString();
    const latest = document["dist-tags"].latest;
    if (latest === undefined || isNewer(version.version, latest)) document["dist-tags"].latest = version.version;
  }
  return document["dist-tags"].latest === undefined ? undefined : document;
}

function answer(response, status, body) {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

function serve(request, response) {
  response.on("finish", () => console.log(`${request.method} ${request.url} ${response.statusCode}`));
  if (request.method !== "GET" && request.method !== "HEAD") return answer(response, 405, { error: "read-only" });
  const path = decodeURIComponent(new URL(request.url, base).pathname);
  if (path === "/" || path === "/-/ping") return answer(response, 200, {});
  const tarball = path.match(/^\/(?:@[^/]+\/)?[^/@]+\/-\/([^/]+\.tgz)$/);
  if (tarball) {
    const file = join(directory, basename(tarball[1]));
    const stream = createReadStream(file);
    stream.on("open", () => response.writeHead(200, { "content-type": "application/octet-stream", "content-length": statSync(file).size }));
    stream.on("error", () => (response.headersSent ? response.destroy() : answer(response, 404, { error: "Not found" })));
    return stream.pipe(response);
  }
  const [, name, wanted] = path.match(/^\/((?:@[^/]+\/)?[^/]+)(?:\/([^/]+))?$/) ?? [];
  const document = name && packageDocument(name);
  if (!document) return answer(response, 404, { error: "Not found" });
  if (wanted === undefined) return answer(response, 200, document);
  const version = document.versions[document["dist-tags"][wanted] ?? wanted];
  return version ? answer(response, 200, version) : answer(response, 404, { error: `version not found: ${wanted}` });
}

createServer((request, response) => {
  try {
    serve(request, response);
  } catch (error) {
    console.log(`${request.method} ${request.url} failed: ${error.stack}`);
    if (response.headersSent) response.destroy();
    else answer(response, 500, { error: error.message });
  }
}).listen(port, "127.0.0.1", () => console.log(`serving ${directory} at ${base}`));

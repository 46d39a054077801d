"""A Hub in memory on the loopback interface: what the real `huggingface_hub` client asks of it, and no more."""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


TOKEN = "hf_" + "LoopbackTokenOfTheTests0123456789"
# What the Hub keeps outside of git.
_LFS = (".safetensors", ".bin", ".pt", ".png", ".model")


@dataclass
class Blob:
    """A file."""

    content: bytes
    is_lfs: bool

    @property
    def oid(self) -> str:
        if self.is_lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass
class Repository:
    """Commits and where the branches stand."""

    private: bool
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, Blob], message: str) -> str:
        seed = json.dumps([branch, message, len(self.commits), {name: blob.oid for name, blob in files.items()}])
        oid = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[oid] = files
        self.refs[branch] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        oid = self.refs.get(revision, revision)
        return oid if oid in self.commits else None


class LoopbackHub:
    """The server; `url` is its address, `repositories` what it holds, `requests` what it was asked."""

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.commits: list[dict[str, list[str]]] = []
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """Path and content of what a revision holds."""
        repository = self.repositories[repo_id]
        return {name: blob.content for name, blob in repository.commits[repository.resolve(revision)].items()}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self._route()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - as above

    def _route(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self._read_chunks()
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        for method, pattern, name in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                return getattr(self, name)(*match.groups())
        return self._answer(404, {"error": f"no route {self.command} {path}"})

    def _read_chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().strip() or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, content=None, headers=None):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str):
        self._answer(status, {"error": code}, {"X-Error-Code": code, "X-Error-Message": code})

    @property
    def _has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repository(self, repo_id: str) -> Repository | None:
        repository = self.hub.repositories.get(repo_id)
        if repository is None or (repository.private and not self._has_token):
            self._refuse(404 if self._has_token else 401, "RepoNotFound")
            return None
        return repository

    def whoami(self):
        if not self._has_token:
            return self._refuse(401, "Unauthorized")
        return self._answer(200, {"name": "owner", "type": "user", "orgs": [], "auth": {"accessToken": {}}})

    def validate_yaml(self):
        return self._answer(200, {"errors": [], "warnings": []})

    def create(self):
        if not self._has_token:
            return self._refuse(401, "Unauthorized")
        asked = json.loads(self.body)
        repo_id = f"{asked.get('organization') or 'owner'}/{asked['name']}"
        url = {"url": f"{self.hub.url}/{repo_id}", "name": repo_id}
        if repo_id in self.hub.repositories:
            return self._answer(409, {"error": "You already created this model repo", **url})
        private = asked.get("private") or asked.get("visibility") == "private"
        repository = self.hub.repositories[repo_id] = Repository(bool(private))
        repository.commit("main", {".gitattributes": Blob(b"", False)}, "initial commit")
        return self._answer(200, url)

    def branch(self, repo_id, name):
        repository = self._repository(repo_id)
        if repository is None:
            return None
        if name in repository.refs:
            return self._answer(409, {"error": "Reference already exists"})
        start = json.loads(self.body or b"{}").get("startingPoint", "main")
        repository.refs[name] = repository.resolve(start)
        return self._answer(200, {})

    def refs(self, repo_id):
        repository = self._repository(repo_id)
        if repository is None:
            return None
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": oid} for name, oid in repository.refs.items()
        ]
        return self._answer(200, {"branches": branches, "tags": [], "converts": []})

    def preupload(self, repo_id, revision):
        repository = self._repository(repo_id)
        if repository is None:
            return None
        oid = repository.resolve(revision)
        if oid is None:
            return self._refuse(404, "RevisionNotFound")
        files = []
        for asked in json.loads(self.body)["files"]:
            path = asked["path"]
            entry = {"path": path, "shouldIgnore": False, "uploadMode": "lfs" if path.endswith(_LFS) else "regular"}
            if path in repository.commits[oid]:
                entry["oid"] = repository.commits[oid][path].oid
            files.append(entry)
        return self._answer(200, {"files": files})

    def lfs_batch(self, repo_id):
        if self._repository(repo_id) is None:
            return None
        objects = []
        for item in json.loads(self.body)["objects"]:
            if item["oid"] not in self.hub.objects:
                item = {**item, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}"}}}
            objects.append(item)
        return self._answer(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self._answer(422, {"error": "wrong checksum"})
        self.hub.objects[oid] = self.body
        return self._answer(200, {})

    def commit(self, repo_id, revision):
        repository = self._repository(repo_id)
        if repository is None:
            return None
        if not self._has_token:
            return self._refuse(401, "Unauthorized")
        if revision not in repository.refs:
            return self._refuse(404, "RevisionNotFound")
        files = dict(repository.commits[repository.refs[revision]])
        message, done = "", {"file": [], "lfsFile": [], "deletedFile": []}
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
                continue
            done[entry["key"]].append(value["path"])
            if entry["key"] == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            elif entry["key"] == "lfsFile":
                files[value["path"]] = Blob(self.hub.objects[value["oid"]], True)
            else:
                del files[value["path"]]
        self.hub.commits.append(done)
        oid = repository.commit(revision, files, message)
        url = f"{self.hub.url}/{repo_id}/commit/{oid}"
        return self._answer(200, {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})

    def info(self, repo_id, revision=None):
        repository = self._repository(repo_id)
        if repository is None:
            return None
        oid = repository.resolve(revision or "main")
        if oid is None:
            return self._refuse(404, "RevisionNotFound")
        siblings = [{"rfilename": path} for path in sorted(repository.commits[oid])]
        content = {"id": repo_id, "modelId": repo_id, "sha": oid, "private": repository.private, "siblings": siblings}
        return self._answer(200, {**content, "tags": [], "downloads": 0, "likes": 0})

    def tree(self, repo_id, revision, folder=None):
        repository = self._repository(repo_id)
        if repository is None:
            return None
        oid = repository.resolve(revision)
        if oid is None:
            return self._refuse(404, "RevisionNotFound")
        entries = []
        for path, blob in sorted(repository.commits[oid].items()):
            if folder and not path.startswith(f"{folder}/"):
                continue
            entry = {"type": "file", "path": path, "size": len(blob.content), "oid": blob.oid}
            if blob.is_lfs:
                entry["lfs"] = {"oid": blob.oid, "size": len(blob.content), "pointerSize": 134}
            entries.append(entry)
        if folder and not entries:
            return self._refuse(404, "EntryNotFound")
        return self._answer(200, entries)

    def resolve(self, repo_id, revision, path):
        repository = self._repository(repo_id)
        if repository is None:
            return None
        oid = repository.resolve(revision)
        if oid is None:
            return self._refuse(404, "RevisionNotFound")
        blob = repository.commits[oid].get(path)
        if blob is None:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": oid}
            return self._answer(404, {"error": "EntryNotFound"}, headers)
        headers = {"X-Repo-Commit": oid, "ETag": f'"{blob.oid}"', "Content-Type": "application/octet-stream"}
        if blob.is_lfs:
            headers |= {"X-Linked-Etag": f'"{blob.oid}"', "X-Linked-Size": str(len(blob.content))}
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None:
            return self._answer(200, blob.content, headers)
        start, end = int(asked[1]), min(int(asked[2]), len(blob.content) - 1)
        headers |= {"Content-Range": f"bytes {start}-{end}/{len(blob.content)}"}
        return self._answer(206, blob.content[start : end + 1], headers)


_REPO = r"([^/]+/[^/]+)"
_ROUTES = [
    (("GET",), r"/api/whoami-v2", "whoami"),
    (("POST",), r"/api/validate-yaml", "validate_yaml"),
    (("POST",), r"/api/repos/create", "create"),
    (("POST",), rf"/api/models/{_REPO}/branch/(.+)", "branch"),
    (("GET",), rf"/api/models/{_REPO}/refs", "refs"),
    (("POST",), rf"/api/models/{_REPO}/preupload/(.+)", "preupload"),
    (("POST",), rf"/{_REPO}\.git/info/lfs/objects/batch", "lfs_batch"),
    (("PUT",), r"/lfs/(\w+)", "lfs_put"),
    (("POST",), rf"/api/models/{_REPO}/commit/(.+)", "commit"),
    (("GET",), rf"/api/models/{_REPO}/tree/([^/]+)(?:/(.+))?", "tree"),
    (("GET",), rf"/api/models/{_REPO}/revision/(.+)", "info"),
    (("GET",), rf"/api/models/{_REPO}", "info"),
    (("GET", "HEAD"), rf"/{_REPO}/resolve/([^/]+)/(.+)", "resolve"),
]

"""A small Hugging Face and a small Kaggle on this machine, for the hubs' own libraries."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import socket
import threading
import urllib.parse

MODELS = "/api/v1/models.ModelApiService/"
BLOBS = "/api/v1/blobs.BlobApiService/"


class HubServer:
    """Repositories by name, and what was asked for.

    Attributes:
        repos: Dict, repository to branch to commit.
        commits: Dict, commit to path to bytes.
        kaggle: Dict, `owner/model/framework/variation` to a list of versions, path to bytes.
        requests: List of (method, path, value of Range).
        broken: Number of downloads of weights that shall break off: one from the start half way,
            one that goes on at once.
        private: Set of repositories for which one must be logged in.
        messages: List of the messages of commits and versions.
    """

    def __init__(self):
        self.repos, self.commits, self.kaggle = {}, {}, {}
        self.requests, self.messages, self.private = [], [], set()
        self.broken = 0
        self._blobs = {}
        self._http = None
        self.start(0)

    def start(self, port):
        server = self

        class Handler(_Handler):
            hub = server

        self._http = _Server(("127.0.0.1", port), Handler)
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            for one in self._http.sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        self._http = None

    @contextlib.contextmanager
    def down(self):
        """While the context lasts nobody listens."""
        self.stop()
        yield
        self.start(self.port)

    def asked(self, part):
        """The ranges of the files' downloads whose path holds a text."""
        return [
            wanted for method, path, wanted in self.requests if method == "GET" and part in path
        ]

    def commit(self, repo, files, branch="main"):
        """Adds files (path to bytes, or `None` to delete) to a branch, and returns the commit."""
        branches = self.repos.setdefault(repo, {})
        all_files = {**self.commits.get(branches.get(branch), {}), **files}
        all_files = {path: data for path, data in all_files.items() if data is not None}
        digest = hashlib.sha1(repr((repo, len(self.commits), sorted(all_files))).encode())
        branches[branch] = digest.hexdigest()
        self.commits[branches[branch]] = all_files
        return branches[branch]

    def files(self, repo, branch="main"):
        return self.commits[self.repos[repo][branch]]


class _Server(http.server.ThreadingHTTPServer):
    """Knows its connections, since clients keep them open."""

    def __init__(self, *arguments):
        self.sockets = []
        super().__init__(*arguments)

    def process_request(self, request, address):
        self.sockets.append(request)
        super().process_request(request, address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub = None

    def log_message(self, *_):
        pass

    def do_GET(self):  # noqa: N802
        self._do(self._get)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self):  # noqa: N802
        self._do(self._post)

    def do_PUT(self):  # noqa: N802
        self._do(self._put)

    def _do(self, answer):
        self.hub.requests.append((self.command, self.path, self.headers.get("Range")))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer(urllib.parse.unquote(self.path.split("?")[0]))

    # === Hugging Face, and the store of Kaggle's files ===
    def _get(self, path):
        if found := re.fullmatch(r"/kaggle-files/(.+)/(\d+)/(.+)", path):
            name, version, file = found.groups()
            return self._file(self.hub.kaggle[name][int(version) - 1][file], {})
        if path == "/api/whoami-v2":
            return self._json({"type": "user", "name": "me", "orgs": []})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/(\w+)", path):
            files = self._commit(*found.groups())
            return files is not None and self._json([_entry(*item) for item in files.items()])
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            repo, revision = found.groups()
            if self._commit(repo, revision or "main") is None:
                return None
            sha = self.hub.repos[repo].get(revision or "main", revision)
            return self._json({"id": repo, "sha": sha, "siblings": [], "private": False})
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo, revision, file = found.groups()
            files = self._commit(repo, revision)
            if files is None:
                return None
            if file not in files:
                return self._error(404, "EntryNotFound")
            etag = hashlib.sha256(files[file]).hexdigest()
            return self._file(files[file], {"ETag": f'"{etag}"', "X-Repo-Commit": revision})
        return self._error(404, "")

    def _commit(self, repo, revision):
        """The files of a commit; if there is none, the error is sent."""
        branches = self.hub.repos.get(repo)
        if branches is None or repo in self.hub.private:
            self._error(401, "RepoNotFound", "Invalid username or password.")
            return None
        sha = branches.get(revision, revision)
        if sha not in self.hub.commits:
            self._error(404, "RevisionNotFound")
            return None
        return self.hub.commits[sha]

    def _post(self, path):
        if path.startswith(MODELS) or path.startswith(BLOBS):
            return self._kaggle(path.rsplit("/", 1)[1], json.loads(self.body))
        if path == "/api/repos/create":
            asked = json.loads(self.body)
            repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if repo in self.hub.repos:
                return self._json({"url": f"{self.hub.url}/{repo}", "error": "exists"}, 409)
            self.hub.commit(repo, {".gitattributes": b"*.npz filter=lfs\n"})
            return self._json({"url": f"{self.hub.url}/{repo}"})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/branch/(.+)", path):
            repo, branch = found.groups()
            if branch in self.hub.repos[repo]:
                return self._error(409, "", "Reference already exists")
            self.hub.repos[repo][branch] = self.hub.repos[repo]["main"]
            return self._json({})
        if re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/(.+)", path):
            kinds = {True: "lfs", False: "regular"}
            files = [
                {
                    "path": f["path"],
                    "uploadMode": kinds[f["path"].endswith(".npz")],
                    "shouldIgnore": False,
                }
                for f in json.loads(self.body)["files"]
            ]
            return self._json({"files": files})
        if re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            objects = [
                {**o, "actions": {"upload": {"href": f"{self.hub.url}/blob/{o['oid']}"}}}
                for o in json.loads(self.body)["objects"]
            ]
            return self._json({"transfer": "basic", "objects": objects})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
            repo, branch = found.groups()
            files = {}
            for line in map(json.loads, self.body.splitlines()):
                value = line["value"]
                if line["key"] == "header":
                    self.hub.messages.append(value["summary"])
                elif line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.hub._blobs[value["oid"]]
            sha = self.hub.commit(repo, files, branch)
            url = f"{self.hub.url}/{repo}/commit/{sha}"
            return self._json({"commitUrl": url, "commitOid": sha, "success": True})
        return self._error(404, "")

    def _put(self, path):
        self.hub._blobs[path.rsplit("/", 1)[1]] = self.body
        self._send(200, b"", {})

    # === Kaggle ===
    def _kaggle(self, call, asked):
        # Nested requests hold the body of the call.
        body = asked.get("body") or {}
        if call == "StartBlobUpload":
            token = f"token{len(self.hub._blobs)}-{asked['name']}"
            self.hub._blobs[token] = b""
            return self._json({"token": token, "createUrl": f"{self.hub.url}/blob/{token}"})
        owner = f"{asked['ownerSlug']}/{asked.get('modelSlug', asked.get('slug'))}"
        if call == "GetModel":
            known = any(name.startswith(f"{owner}/") for name in self.hub.kaggle)
            return self._json({"slug": owner}) if known else self._error(404, "")
        if call == "CreateModel":
            return self._json({"id": 1})
        framework = (asked.get("framework") or body.get("framework", "")).lower()
        framework = framework.removeprefix("model_framework_")
        name = f"{owner}/{framework}/{asked.get('instanceSlug') or body.get('instanceSlug')}"
        if call.startswith("CreateModelInstance"):
            if call == "CreateModelInstance" and name in self.hub.kaggle:
                return self._json({"error": "exists", "errorCode": 409})
            files = {
                f["token"].split("-", 1)[1]: self.hub._blobs[f["token"]] for f in body["files"]
            }
            self.hub.kaggle.setdefault(name, []).append(files)
            self.hub.messages.append(body.get("versionNotes", ""))
            return self._json({"id": 1})
        versions = self.hub.kaggle.get(name)
        if versions is None or name in self.hub.private:
            return self._error(404 if versions is None else 403, "")
        if call == "GetModelInstance":
            return self._json({"versionNumber": len(versions)})
        version, file = asked["versionNumber"], asked["path"]
        if not 0 < version <= len(versions) or file not in versions[version - 1]:
            return self._error(404, "")
        place = f"{self.hub.url}/kaggle-files/{name}/{version}/{file}"
        return self._send(302, b"", {"Location": place})

    # === Answers ===
    def _file(self, content, headers):
        headers = {"Accept-Ranges": "bytes", **headers}
        status, start = 200, 0
        if wanted := self.headers.get("Range"):
            status, start = 206, int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        rest = content[start:]
        if self.command == "GET" and self.hub.broken and self.path.endswith(".npz"):
            self.hub.broken -= 1
            self._send(status, rest, headers, sent=0 if start else len(rest) // 2)
            self.close_connection = True
            return
        self._send(status, rest, headers)

    def _json(self, value, status=200):
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status, code, message="not found"):
        headers = {"X-Error-Message": message, "Content-Type": "application/json"}
        if code:
            headers["X-Error-Code"] = code
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(self, status, content, headers, sent=None):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:sent])


def _entry(path, content):
    size, oid = len(content), hashlib.sha1(content).hexdigest()
    entry = {"type": "file", "path": path, "size": size, "oid": oid}
    if path.endswith(".npz"):
        sha = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": sha, "size": size, "pointerSize": 130}
    return entry

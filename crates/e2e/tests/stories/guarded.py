"""Another host, as an API server sees it over TLS: an issuer of tokens and the webhooks of a server's files; and who floods a server.

serve ADDRESS FOLDER       answers at port 443 with FOLDER/cert, FOLDER/key
sign KEY CLAIMS            prints a token with these claims, and the time from now for `exp`
keys KEY                   prints the key set of that key
flood SERVER CA LOUD QUIET prints how many requests of LOUD's token were answered while one of QUIET's waited, at most
"""

import base64
import http.client
import http.server
import json
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse


def encoded(data):
    if not isinstance(data, bytes):
        data = json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*words, data=b""):
    return subprocess.run(["openssl", *words], input=data, capture_output=True, check=True).stdout


def sign(key, claims):
    claims = json.loads(claims)
    claims["exp"] = int(time.time()) + claims["exp"]
    text = encoded({"alg": "RS256", "kid": "one"}) + "." + encoded(claims)
    print(text + "." + encoded(openssl("dgst", "-sha256", "-sign", key, data=text.encode())))


def keys(key):
    modulus = openssl("rsa", "-in", key, "-noout", "-modulus").decode().strip().removeprefix("Modulus=")
    key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "one", "n": encoded(bytes.fromhex(modulus)), "e": "AQAB"}
    print(json.dumps({"keys": [key]}))


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def say(self, value):
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def fail(self, status):
        self.send_response(status)
        if status == 503:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        own = f"https://{self.server.address}"
        if self.path == "/.well-known/openid-configuration":
            return self.say({"issuer": own, "jwks_uri": f"{own}/keys"})
        if self.path == "/keys":
            with open(f"{self.server.folder}/keys.json") as file:
                return self.say(json.load(file))
        return self.send_error(404)

    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/audit":
            with open(f"{self.server.folder}/audited", "a") as file:
                file.writelines(json.dumps(item) + "\n" for item in told["items"])
            return self.say({})
        spec = told["spec"]
        if spec["user"] == "oidc:foe":
            return self.say({"status": {"allowed": False, "denied": True, "reason": "foes are known here"}})
        # Not at once: first it says when it can, then only that it cannot.
        if spec["user"] == "oidc:late":
            status = self.server.late.pop(0) if self.server.late else 200
            with open(f"{self.server.folder}/late", "a") as file:
                file.write(f"{status}\n")
            if status != 200:
                return self.fail(status)
        # A question that takes its time keeps its request at work.
        if spec["user"] == "oidc:loud":
            time.sleep(0.1)
        asked = spec.get("resourceAttributes", {})
        return self.say({"status": {"allowed": asked.get("resource") == "configmaps", "reason": "configmaps are for all"}})

    def log_message(self, *words):
        pass


class Server(http.server.ThreadingHTTPServer):
    def finish_request(self, request, address):
        # Each handshake in its own thread.
        with self.tls.wrap_socket(request, server_side=True) as stream:
            super().finish_request(stream, address)


def serve(address, folder):
    server = Server((address, 443), Answers)
    server.address, server.folder, server.late = address, folder, [503, 500]
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.tls.load_cert_chain(f"{folder}/cert", f"{folder}/key")
    server.serve_forever()


LOUD_CLIENTS = 40


def flood(server, ca, loud, quiet):
    place = urllib.parse.urlsplit(server)
    answered = []
    over = threading.Event()

    def connected():
        return http.client.HTTPSConnection(place.hostname, place.port, context=ssl.create_default_context(cafile=ca), timeout=60)

    def ask(connection, token):
        connection.request("GET", "/api/v1/namespaces/default/configmaps", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        answer.read()
        return answer.status

    def shout():
        connection = connected()
        while not over.is_set():
            answered.append(ask(connection, loud))

    clients = [threading.Thread(target=shout) for _ in range(LOUD_CLIENTS)]
    for client in clients:
        client.start()
    # All of them have been answered once and ask again.
    while len(answered) < 2 * LOUD_CLIENTS and any(client.is_alive() for client in clients):
        time.sleep(0.05)
    connection, most = connected(), 0
    for _ in range(5):
        before = len(answered)
        status = ask(connection, quiet)
        most = max(most, len(answered) - before)
        if status != 200:
            sys.exit(f"the quiet one is answered {status}")
    over.set()
    for client in clients:
        client.join()
    print(json.dumps({"most": most, "codes": sorted(set(answered))}))


{"serve": serve, "sign": sign, "keys": keys, "flood": flood}[sys.argv[1]](*sys.argv[2:])

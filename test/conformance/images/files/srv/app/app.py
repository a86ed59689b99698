"""The application of the Compose test: counts its visitors in PostgreSQL and in Redis, and says both counts as JSON."""
import http.server
import json
import os
import socket

import psycopg2
import redis

cache = redis.Redis(host=os.environ.get("REDIS_HOST", "redis"))


def visit():
    """One visit: a row in PostgreSQL, a count in Redis."""
    with psycopg2.connect(os.environ["DATABASE_URL"]) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS visits (at timestamptz DEFAULT now())")
        cursor.execute("INSERT INTO visits DEFAULT VALUES")
        cursor.execute("SELECT count(*) FROM visits")
        (rows,) = cursor.fetchone()
    return {"rows": rows, "hits": cache.incr("hits"), "host": socket.gethostname(), "kernel": os.uname().release}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = (200, {"ok": True}) if self.path == "/health" else (200, None)
        try:
            body = body or visit()
        except (psycopg2.Error, redis.RedisError) as error:
            status, body = 503, {"error": str(error)}
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *args):
        print(self.address_string(), format % args, flush=True)


print("app listens on 8000", flush=True)
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()

import http.client
import socket
import threading
import unittest

import main


class TestWorker(unittest.TestCase):
    def ask(self, route: str, path: str) -> tuple[int, str]:
        """Asks a worker on `route` for `path`."""
        server = main.Server(socket.create_server(("127.0.0.1", 0)), route)
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        client = http.client.HTTPConnection(*server.socket.getsockname(), timeout=10)
        try:
            client.request("GET", path)
            response = client.getresponse()
            return response.status, response.read().decode()
        finally:
            # The connection is still open, and an idle one must not hold up the end.
            server.shutdown()
            serving.join()
            server.stop()
            client.close()

    def test_the_page_is_at_the_route_and_says_the_name(self) -> None:
        for route, path in [("/a/b", "/a/b"), ("/a/b", "/a/b/?x=1"), ("/", "/")]:
            status, body = self.ask(route, path)
            self.assertEqual(status, 200, path)
            self.assertIn("{{name}}", body)

    def test_the_health_path_is_below_the_route(self) -> None:
        self.assertEqual(self.ask("/a", "/a/health")[0], 200)
        self.assertEqual(self.ask("/", "/health")[0], 200)

    def test_what_is_not_there_is_404(self) -> None:
        self.assertEqual(self.ask("/a", "/a/none")[0], 404)
        self.assertEqual(self.ask("/a", "/")[0], 404)


if __name__ == "__main__":
    unittest.main()

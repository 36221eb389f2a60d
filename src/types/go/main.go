// The worker {{name}}: a page and a health path.
//
// The listening socket is file descriptor 3 (sd_listen_fds(3)), and SIGTERM means: finish and exit.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// firstFD is the first file descriptor that systemd passes.
const firstFD = 3

const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{name}}</title>
</head>
<body>
<h1>Hello from {{name}}</h1>
<p>Edit <code>{{directory}}/main.go</code>, save it, and this page follows.</p>
</body>
</html>
`

func main() {
	// The journal has the time already.
	log.SetFlags(0)
	terminated, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(terminated); err != nil {
		log.Fatal(err)
	}
}

// run serves until the context ends, and then finishes the requests in flight.
func run(terminated context.Context) error {
	listener, err := listen()
	if err != nil {
		return err
	}
	// The whole path of a request arrives here, so the worker has to know where it is.
	route := os.Getenv("WORKER_ROUTE")
	server := &http.Server{Handler: handler(route), ReadHeaderTimeout: 30 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	log.Printf("{{name}} serves %s", route)
	select {
	case err := <-ended:
		return err
	case <-terminated.Done():
		// It has no deadline of its own: the server ends a worker that takes too long.
		return server.Shutdown(context.Background())
	}
}

// listen takes over the socket that systemd has opened.
func listen() (net.Listener, error) {
	// A child would inherit these variables too; LISTEN_PID tells whom they are for.
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) || os.Getenv("LISTEN_FDS") != "1" {
		return nil, errors.New("no socket was passed; run this worker with `tqserver dev`")
	}
	file := os.NewFile(firstFD, "socket")
	// The listener has a descriptor of its own.
	defer file.Close()
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("listen on file descriptor %d: %w", firstFD, err)
	}
	return listener, nil
}

// handler answers requests for route and what is below it.
func handler(route string) http.Handler {
	base := strings.TrimSuffix(route, "/")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case base, base + "/":
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			io.WriteString(w, page)
		case base + "/health":
			io.WriteString(w, "ok\n")
		default:
			http.NotFound(w, r)
		}
	})
}

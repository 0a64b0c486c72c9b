// Command app is the application in the test image: an HTTP server, its clients and its probe. It needs no libraries, so
// that the image has no base.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const usage = `usage: app COMMAND
  serve PORT       answers HTTP requests with its pod, node, version and the client's address, and health checks of gRPC;
                   prints each of them
  get URL          prints the answer to a GET request
  hold URL FILE    sends requests over one connection until FILE exists, then prints their number
  resolve NAME     prints the addresses of a name, one a line
  probe            succeeds while /tmp/ready exists, which serve creates
  ready on|off     creates or removes /tmp/ready
  version          prints the version of the image`

const readyFile = "/tmp/ready"

// healthCheck is the method that gRPC probes call (grpc.health.v1).
const healthCheck = "/grpc.health.v1.Health/Check"

// requestLimit bounds requests and name look-ups: tests try again, they do not wait for one that is lost.
const requestLimit = 5 * time.Second

// holdInterval is the pause between two requests over a connection that is held.
const holdInterval = 100 * time.Millisecond

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch command := strings.Join(args, " "); {
	case command == "version":
		fmt.Println(os.Getenv("VERSION"))
		return nil
	case command == "probe":
		_, err := os.Stat(readyFile)
		return err
	case command == "ready on":
		return os.WriteFile(readyFile, nil, 0o600)
	case command == "ready off":
		return os.Remove(readyFile)
	case len(args) == 2 && args[0] == "serve":
		return serve(args[1])
	case len(args) == 2 && args[0] == "get":
		return get(args[1])
	case len(args) == 3 && args[0] == "hold":
		return hold(args[1], args[2])
	case len(args) == 2 && args[0] == "resolve":
		return resolve(args[1])
	}
	return errors.New(usage)
}

// serve answers until SIGTERM. It listens on both families, if the pod has both.
func serve(port string) error {
	if err := os.WriteFile(readyFile, nil, 0o600); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// HTTP/2 without TLS is for gRPC probes.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := http.Server{
		Addr:              net.JoinHostPort("", port),
		Handler:           http.HandlerFunc(answer),
		Protocols:         &protocols,
		ReadHeaderTimeout: requestLimit,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	fmt.Printf("version %s serves on port %s\n", os.Getenv("VERSION"), port)
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return server.Close()
	}
}

func answer(w http.ResponseWriter, r *http.Request) {
	fmt.Printf("%s %s from %s\n", r.Method, r.URL.Path, r.RemoteAddr)
	if r.URL.Path == healthCheck {
		serving(w)
		return
	}
	fmt.Fprintf(w, "pod=%s node=%s version=%s client=%s\n", os.Getenv("POD"), os.Getenv("NODE"), os.Getenv("VERSION"), r.RemoteAddr)
}

// serving answers a health check of gRPC: a message of two bytes, field 1 (status) = 1 (SERVING), and the trailer that says
// that the call has succeeded.
func serving(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	// A client that has gone gets no answer.
	_, _ = w.Write([]byte{0, 0, 0, 0, 2, 1 << 3, 1})
	w.Header().Set("Grpc-Status", "0")
}

// hold sends a request every hold interval over one connection. The end of the connection is an error.
func hold(address, end string) error {
	target, err := url.Parse(address)
	if err != nil {
		return err
	}
	connection, err := net.DialTimeout("tcp", target.Host, requestLimit)
	if err != nil {
		return err
	}
	defer connection.Close()
	answers := bufio.NewReader(connection)
	for sent := 0; ; sent++ {
		if _, err := os.Stat(end); err == nil {
			fmt.Println(sent)
			return os.Remove(end)
		}
		if err := exchange(connection, answers, target); err != nil {
			return fmt.Errorf("the connection ended after %d requests: %w", sent, err)
		}
		time.Sleep(holdInterval)
	}
}

// exchange sends one request over a connection and reads its answer.
func exchange(connection net.Conn, answers *bufio.Reader, target *url.URL) error {
	if err := connection.SetDeadline(time.Now().Add(requestLimit)); err != nil {
		return err
	}
	request := http.Request{Method: http.MethodGet, URL: target, Host: target.Host}
	if err := request.Write(connection); err != nil {
		return err
	}
	response, err := http.ReadResponse(answers, &request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

func get(address string) error {
	client := http.Client{Timeout: requestLimit}
	response, err := client.Get(address)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(os.Stdout, response.Body); err != nil {
		return err
	}
	if response.StatusCode >= http.StatusBadRequest {
		return errors.New(response.Status)
	}
	return nil
}

func resolve(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, name)
	if err != nil {
		return err
	}
	for _, address := range addresses {
		fmt.Println(address)
	}
	return nil
}

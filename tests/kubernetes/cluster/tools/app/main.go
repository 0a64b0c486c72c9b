// Command app is the application in the test image: an HTTP server, its clients and its probe. It needs no libraries, so
// that the image has no base.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const usage = `usage: app COMMAND
  serve PORT       answers HTTP requests with its pod, node, version and the client's address; prints each of them
  get URL          prints the answer to a GET request
  resolve NAME     prints the addresses of a name, one a line
  probe            succeeds while /tmp/ready exists, which serve creates
  ready on|off     creates or removes /tmp/ready
  version          prints the version of the image`

const readyFile = "/tmp/ready"

// requestLimit bounds requests and name look-ups: tests try again, they do not wait for one that is lost.
const requestLimit = 5 * time.Second

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
	server := http.Server{Addr: net.JoinHostPort("", port), Handler: http.HandlerFunc(answer), ReadHeaderTimeout: requestLimit}
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
	fmt.Fprintf(w, "pod=%s node=%s version=%s client=%s\n", os.Getenv("POD"), os.Getenv("NODE"), os.Getenv("VERSION"), r.RemoteAddr)
}

func get(url string) error {
	client := http.Client{Timeout: requestLimit}
	response, err := client.Get(url)
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

// Command relay forwards connections from one address to another, for as long as it runs. It is how a kubeconfig on the
// machine reaches an API server in a network namespace: one relay listens on loopback and dials a unix socket, another
// one inside the namespace listens on that socket and dials the API server. Unix sockets do not belong to a network
// namespace.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"
)

func main() {
	if len(os.Args) < 3 || len(os.Args) > 4 {
		log.Fatal("usage: relay NETWORK:LISTEN NETWORK:DIAL [FILE]\nNETWORK is tcp or unix; FILE receives the address that relay listens on")
	}
	if err := serve(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		log.Fatalf("relay: %v", err)
	}
}

func serve(from, to string, announce []string) error {
	network, address, _ := strings.Cut(from, ":")
	if network == "unix" {
		// Left by a relay that was killed: nobody else listens here.
		if err := os.Remove(address); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	for _, file := range announce {
		if err := write(file, listener.Addr().String()); err != nil {
			return err
		}
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accept on %s: %w", from, err)
		}
		go forward(client, to)
	}
}

// write puts the file in its place at once: its reader never sees half of it.
func write(file, text string) error {
	draft := file + ".new"
	if err := os.WriteFile(draft, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(draft, file)
}

// forward relays both directions of a connection, each until its end.
func forward(client net.Conn, to string) {
	defer client.Close()
	network, address, _ := strings.Cut(to, ":")
	server, err := net.Dial(network, address)
	if err != nil {
		log.Printf("relay: %v", err)
		return
	}
	defer server.Close()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		relay(server, client)
	}()
	relay(client, server)
	<-sent
}

func relay(to, from net.Conn) {
	// An error of either side ends this direction only; the other one learns of it by itself.
	_, _ = io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

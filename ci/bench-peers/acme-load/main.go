// The ceiling of an ACME CA: certificates a second for a client that does nothing but the protocol. Keys and signing
// requests are made before the clock starts, nothing is stored, challenges are answered without state.
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/acme"
)

const atOnce = 128

func main() {
	directory, roots, port := os.Args[1], os.Args[2], os.Args[3]
	count, err := strconv.Atoi(os.Args[4])
	check(err)
	base := os.Args[5]
	pem, err := os.ReadFile(roots)
	check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: pool},
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: atOnce,
	}
	client := &acme.Client{Key: key, DirectoryURL: directory, HTTPClient: &http.Client{Transport: transport}}
	ctx := context.Background()
	_, err = client.Register(ctx, &acme.Account{}, acme.AcceptTOS)
	check(err)
	thumbprint, err := acme.JWKThumbprint(key.Public())
	check(err)
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	check(err)
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		w.Write([]byte(token + "." + thumbprint))
	}))

	names, requests := make([]string, count), make([][]byte, count)
	for n := range names {
		names[n] = fmt.Sprintf("n%d.%s", n, base)
		var leaf crypto.Signer
		leaf, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		check(err)
		requests[n], err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names[n : n+1]}, leaf)
		check(err)
	}
	work := make(chan int, count)
	for n := range names {
		work <- n
	}
	close(work)
	begun := time.Now()
	var done sync.WaitGroup
	for range atOnce {
		done.Add(1)
		go func() {
			defer done.Done()
			for n := range work {
				issue(ctx, client, names[n], requests[n])
			}
		}()
	}
	done.Wait()
	// Under load Pebble cannot verify a few: they count neither here nor there.
	fmt.Printf("seconds %.3f issued %d\n", time.Since(begun).Seconds(), count-int(invalid.Load()))
}

var invalid atomic.Int64

func issue(ctx context.Context, client *acme.Client, name string, request []byte) {
	order, err := client.AuthorizeOrder(ctx, acme.DomainIDs(name))
	check(err)
	for _, url := range order.AuthzURLs {
		authorization, err := client.GetAuthorization(ctx, url)
		check(err)
		for _, challenge := range authorization.Challenges {
			if challenge.Type == "http-01" && authorization.Status == acme.StatusPending {
				_, err = client.Accept(ctx, challenge)
				check(err)
			}
		}
	}
	for pause := 20 * time.Millisecond; ; pause = min(pause*3/2, time.Second) {
		time.Sleep(pause)
		state, err := client.GetOrder(ctx, order.URI)
		check(err)
		if state.Status == acme.StatusReady {
			break
		}
		if state.Status == acme.StatusInvalid {
			invalid.Add(1)
			return
		}
	}
	// Pebble's answer names no place, so that the library cannot wait by itself for an order that is still processed.
	if _, _, err = client.CreateOrderCert(ctx, order.FinalizeURL, request, true); err == nil {
		return
	}
	for pause := 20 * time.Millisecond; ; pause = min(pause*3/2, time.Second) {
		time.Sleep(pause)
		state, err := client.GetOrder(ctx, order.URI)
		check(err)
		if state.Status == acme.StatusValid {
			_, err = client.FetchCert(ctx, state.CertURL, true)
			check(err)
			return
		}
		if state.Status == acme.StatusInvalid {
			invalid.Add(1)
			return
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

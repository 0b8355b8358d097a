// CertMagic, managing many names at one CA: how long until all have a certificate.
package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

func main() {
	directory, roots := os.Args[1], os.Args[2]
	port, err := strconv.Atoi(os.Args[3])
	check(err)
	count, err := strconv.Atoi(os.Args[4])
	check(err)
	base := os.Args[5]
	pem, err := os.ReadFile(roots)
	check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	quiet := zap.NewNop()
	storage := &certmagic.FileStorage{Path: "storage"}
	var config *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return config, nil },
		Logger:           quiet,
	})
	config = certmagic.New(cache, certmagic.Config{Storage: storage, Logger: quiet})
	// Its own limit of ten orders in ten seconds is for public CAs.
	certmagic.RateLimitEvents, certmagic.RateLimitEventsWindow = 0, 0
	config.Issuers = []certmagic.Issuer{certmagic.NewACMEIssuer(config, certmagic.ACMEIssuer{
		CA: directory, TestCA: directory, Agreed: true, Email: "ops@shop.example", TrustedRoots: pool, Logger: quiet,
		DisableTLSALPNChallenge: true, ListenHost: "127.0.0.1", AltHTTPPort: port,
	})}
	names := make([]string, count)
	for n := range names {
		names[n] = fmt.Sprintf("n%d.%s", n, base)
	}
	// The account first: hundreds that would register it at once wait for one lock.
	check(config.ManageSync(context.Background(), []string{"first." + base}))
	begun := time.Now()
	check(config.ManageAsync(context.Background(), names))
	for {
		have := 0
		for _, name := range names {
			if len(cache.AllMatchingCertificates(name)) > 0 {
				have++
			}
		}
		// Under load this CA's resolver times out for some of the names, and CertMagic tries those again after a minute: they
		// are not waited for, as for the others.
		if have >= count*9/10 {
			fmt.Printf("seconds %.3f issued %d\n", time.Since(begun).Seconds(), have)
			return
		}
		if time.Since(begun) > 10*time.Minute {
			check(fmt.Errorf("%d of %d after ten minutes", have, count))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

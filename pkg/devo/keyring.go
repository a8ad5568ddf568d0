package devo

import (
	"crypto/tls"
	"crypto/x509"
	"sync"
	"time"
)

// Keyring remembers what the certificate files of one endpoint held when they could last be used, so that
// replacing them breaks nothing: half-written, missing for a moment, or a certificate whose key has not
// been replaced yet.
//
//	           both files of a pair can be read and match
//	          ┌───────────────────────────────────────┐
//	          │                                       ▼
//	files ────┤                                    in use ── outside its dates ──> error
//	          │                                       ▲
//	          └─ cannot be used ──> [Keyring.Stale] ──┘ the one before, while within its dates;
//	                                    │
//	                                    └─ there is none ──> error
//
// Whole files are always believed: a pair that matches and is expired is an error and does not fall back.
// Chain file and pair are looked at each by itself.
//
// The zero value remembers nothing yet. It is for one endpoint and safe for concurrent use.
type Keyring struct {
	mu    sync.Mutex
	keys  keys
	stale error
}

// keys is what an endpoint's certificate files hold.
type keys struct {
	chain []*x509.Certificate // nil without a chain file
	pair  *tls.Certificate    // nil without a client certificate
}

// Stale returns why what is in use is not what the files hold: they could not be used when they were read
// last. It is nil while the two are the same. A reading that gives an error because nothing can take the
// files' place changes nothing here. The error is a [*Failure] with a hint.
func (k *Keyring) Stale() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stale
}

// read reads the endpoint's files. Where one cannot be used, what the keyring remembers takes its place.
func (e Endpoint) read(now time.Time) (keys, error) {
	var (
		found              keys
		chainErr, pairErr  error
		hasChain, wantPair = e.ChainFile != "", e.CertFile != "" || e.KeyFile != ""
	)
	if hasChain {
		found.chain, chainErr = readChain(e.ChainFile)
	}
	if wantPair {
		found.pair, pairErr = readKeyPair(e.CertFile, e.KeyFile)
	}
	k := e.Keyring
	if k == nil {
		// Of no use to anybody, but then there is one way through below.
		k = new(Keyring)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var stale error
	if chainErr != nil {
		if k.keys.chain == nil {
			return keys{}, chainErr
		}
		found.chain, stale = k.keys.chain, chainErr
	}
	if pairErr != nil {
		if k.keys.pair == nil || checkDates(k.keys.pair, e.CertFile, now) != nil {
			return keys{}, pairErr
		}
		found.pair, stale = k.keys.pair, pairErr
	}
	k.keys, k.stale = found, stale
	return found, nil
}

package fetcher

import (
	"context"
	"sync"

	"defenderiot/pkg/certificate"
)

// watchCertificate tells when the certificate ends that the fetcher signs in with, also while it stands by, until stop
// is called.
func (f *Fetcher) watchCertificate(ctx context.Context) (stop func()) {
	if f.certificates == nil {
		return func() {}
	}
	w := certificate.Watch{
		Read: f.certificates, Logger: f.setupLogger, Attrs: []any{"input", f.source.Input},
		Record: func(ctx context.Context, v certificate.Validity) {
			f.metrics.expiry.Record(ctx, float64(v.End.Unix()), f.metrics.labels)
		},
	}
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { w.Run(ctx) })
	return func() {
		cancel()
		group.Wait()
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"defenderiot/services/simulator"
)

const (
	// obfuscationRuns is odd, so that there is a run in the middle.
	obfuscationRuns   = 5
	obfuscationAlerts = 20_000
)

// twoPaths masks one value of every alert and one of nearly every alert.
func twoPaths(text string) string {
	const rules = `
        obfuscation_data:
          - name: [properties, azureResourceId]
          - name: [properties, extendedProperties, SourceDeviceAddress]
            value: masked`
	return strings.Replace(text, "      iot_security_alerts:", "      iot_security_alerts:"+rules, 1)
}

// obfuscation is source with two obfuscated paths and without, in turns, so that both see the same machine.
func (b *bench) obfuscation(ctx context.Context) error {
	alerts := min(b.alerts, obfuscationAlerts)
	var without, with []float64
	for range obfuscationRuns {
		for _, masked := range []bool{false, true} {
			cpu, err := b.obfuscated(ctx, alerts, masked)
			if err != nil {
				return err
			}
			each := float64(cpu.Nanoseconds()) / 1000 / float64(alerts)
			if masked {
				with = append(with, each)
			} else {
				without = append(without, each)
			}
		}
	}
	plain, masked := median(without), median(with)
	fmt.Printf("obfuscation: %d alerts from the simulated Azure to the sink, median of %d runs in turns: %.1f us CPU an alert without, %.1f us with two obfuscated paths: %+.1f us, ratio %.3f\n",
		alerts, obfuscationRuns, plain, masked, masked-plain, masked/plain)
	return nil
}

// obfuscated is one run; the processor time is that of the collector, start and stop included.
func (b *bench) obfuscated(ctx context.Context, alerts int, masked bool) (time.Duration, error) {
	edit := share("1.0", 5)
	s, err := newSite(simulator.Options{Backfill: alerts, Generator: simulator.GeneratorOptions{Size: 1500}}, func(text string) string {
		if masked {
			text = twoPaths(text)
		}
		return edit(text)
	})
	if err != nil {
		return 0, err
	}
	defer s.close()
	r, err := b.start(ctx, s)
	if err != nil {
		return 0, err
	}
	if _, err := s.arrive(ctx, int64(alerts)); err != nil {
		return 0, errors.Join(err, kill(r))
	}
	if _, _, err := s.confirmed(ctx, uint64(alerts)); err != nil {
		return 0, errors.Join(err, kill(r))
	}
	values, err := r.obfuscatedValues(ctx)
	if err == nil && (values >= alerts) != masked {
		err = fmt.Errorf("%d values were masked in %d alerts", values, alerts)
	}
	if err != nil {
		return 0, errors.Join(err, kill(r))
	}
	cpu, _, err := r.stop()
	return cpu, err
}

// obfuscatedValues is the collector's own count.
func (r *running) obfuscatedValues(ctx context.Context) (int, error) {
	r.mu.Lock()
	_, rest, _ := strings.Cut(r.log.String(), "telemetry=")
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+strings.Fields(rest + " ?")[0]+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close() //nolint:errcheck // it was read to its end
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "collector_fetcher_obfuscated_values_total{") {
			fields := strings.Fields(line)
			n, err := strconv.ParseFloat(fields[len(fields)-1], 64)
			if err != nil {
				return 0, err
			}
			sum += n
		}
	}
	return int(sum), nil
}

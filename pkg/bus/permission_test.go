package bus_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/secret"
	"defenderiot/proto"
)

var update = flag.Bool("update", false, "write golden files anew")

const usersFile = "../../deploy/nats/users.conf"

// The file that servers include is what the declaration says.
func TestUsersConfIsWhatIsDeclared(t *testing.T) {
	want := bus.UsersConf()
	if *update {
		if err := os.WriteFile(usersFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(usersFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("deploy/nats/users.conf is not what pkg/bus/permission.go declares; write it anew: go test ./pkg/bus -run TestUsersConf -update")
	}
}

// secured is a server with users and TLS, provisioned by its admin.
func secured(t *testing.T) *bustest.Deployed {
	t.Helper()
	d := bustest.Deploy(t, "secure.conf", 1)
	if _, err := d.Connect(d.Settings(bus.UserAdmin)).Provision(bustest.Context(t), bustest.Topology("devo_1"), false); err != nil {
		t.Fatalf("provision: %v", err)
	}
	if v := d.Violations(); len(v) > 0 {
		t.Fatalf("refused to the admin: %v", v)
	}
	return d
}

// Each subject is refused to everybody but those who are named, and only to them.
func TestWhoMayDoWhat(t *testing.T) {
	const fetcher, dedup, sender, collector, operator, admin = bus.UserFetcher, bus.UserDedup, bus.UserSender, bus.UserCollector, bus.UserOperator, bus.UserAdmin
	d := secured(t)
	api := func(request string) string { return "$JS.API." + request }
	kv := func(bucket string) string { return "$KV." + bucket + ".x" }
	allowed := map[string][]string{
		"anything.else":                                                nil,
		"$SYS.REQ.SERVER.PING":                                         nil,
		bus.InboxPrefix("other") + ".x":                                nil,
		api("STREAM.CREATE.OTHER"):                                     nil,
		api("STREAM.DELETE.UNIQUE"):                                    nil,
		api("STREAM.DELETE.KV_checkpoints"):                            nil,
		api("STREAM.PURGE.KV_checkpoints"):                             nil,
		api("STREAM.MSG.DELETE.UNIQUE"):                                nil,
		api("STREAM.MSG.GET.KV_checkpoints"):                           nil,
		api("STREAM.MSG.GET.KV_hashes"):                                {dedup, collector},
		api("STREAM.MSG.GET.RAW"):                                      {dedup, collector},
		api("STREAM.MSG.GET.UNIQUE"):                                   {dedup, collector},
		api("STREAM.MSG.GET.DEAD"):                                     {dedup, collector},
		api("STREAM.SNAPSHOT.UNIQUE"):                                  nil,
		api("STREAM.LIST"):                                             nil,
		api("CONSUMER.MSG.NEXT.KV_hashes.any"):                         nil,
		api("CONSUMER.CREATE.KV_hashes.any"):                           nil,
		api("STREAM.CREATE.UNIQUE"):                                    {admin},
		api("STREAM.UPDATE.RAW"):                                       {admin},
		api("STREAM.UPDATE.KV_ledgers"):                                {admin},
		api("CONSUMER.CREATE.RAW.any"):                                 {admin},
		api("CONSUMER.DELETE.RAW.any"):                                 {admin},
		api("CONSUMER.CREATE.UNIQUE.any"):                              {admin, operator},
		api("CONSUMER.DELETE.UNIQUE.any"):                              {admin, operator},
		api("CONSUMER.CREATE.KV_checkpoints.any." + kv("checkpoints")): {operator},
		api("STREAM.PURGE.RAW"):                                        {dedup, collector},
		api("STREAM.PURGE.UNIQUE"):                                     {dedup, collector},
		api("STREAM.PURGE.DEAD"):                                       {operator},
		api("STREAM.MSG.DELETE.DEAD"):                                  {operator},
		api("STREAM.PURGE.KV_hashes"):                                  {fetcher, collector},
		api("STREAM.PURGE.KV_ledgers"):                                 {sender, collector, operator, admin},
		api("STREAM.INFO.RAW"):                                         {fetcher, dedup, sender, collector, operator, admin},
		api("CONSUMER.NAMES.UNIQUE"):                                   {dedup, collector, operator, admin},
		api("CONSUMER.MSG.NEXT.RAW.dedup"):                             {dedup, collector},
		api("CONSUMER.MSG.NEXT.UNIQUE.output-devo_1"):                  {sender, collector, operator},
		api("CONSUMER.MSG.NEXT.INTERNAL.output-devo_1"):                {sender, collector},
		"$JS.ACK.RAW.dedup.1.1.1.1.0":                                  {dedup, collector},
		"$JS.ACK._.hash.RAW.dedup.1.1.1.1.0":                           {dedup, collector},
		"$JS.ACK.UNIQUE.output-devo_1.1.1.1.1.0":                       {dedup, sender, collector},
		"$JS.ACK._.hash.UNIQUE.output-devo_1.1.1.1.1.0":                {sender, collector},
		api("DIRECT.GET.RAW"):                                          {dedup, collector, operator},
		api("DIRECT.GET.DEAD"):                                         {dedup, collector, operator},
		api("DIRECT.GET.UNIQUE"):                                       {dedup, collector, operator, admin},
		api("DIRECT.GET.KV_hashes"):                                    {fetcher, dedup, collector, operator},
		api("DIRECT.GET.KV_hashes." + kv("hashes")):                    {fetcher, dedup, collector, operator},
		api("DIRECT.GET.KV_checkpoints"):                               {fetcher, dedup, collector, operator},
		api("DIRECT.GET.KV_ledgers"):                                   {dedup, sender, collector, operator},
		"alerts.raw.input.1.service":                                   {fetcher, collector, operator},
		"alerts.unique.input.1.service.1.x":                            {dedup, collector},
		"alerts.dead.fetcher.=.x":                                      {fetcher, collector},
		"alerts.dead.dedup.=.x":                                        {dedup, collector},
		"alerts.dead.sender.devo_1.x":                                  {sender, collector},
		kv("checkpoints"):                                              {fetcher, collector, operator},
		"$KV.checkpoints.record.input.1.service":                       {fetcher, dedup, collector, operator},
		"$KV.checkpoints.lease.input.1.service":                        {fetcher, collector, operator},
		"$KV.checkpoints.keeper.loss":                                  {fetcher, dedup, collector, operator},
		kv("hashes"):                                                   {dedup, collector, operator},
		kv("ledgers"):                                                  {sender, collector, operator, admin},
		kv("status.fetcher"):                                           {fetcher, collector},
		kv("status.dedup"):                                             {dedup, collector},
		kv("status.sender"):                                            {sender, collector},
		kv("status.collector"):                                         {collector},
		api("DIRECT.GET.KV_status"):                                    {operator},
		api("STREAM.CREATE.KV_status"):                                 {admin},
		"$SYS.REQ.USER.INFO":                                           {fetcher, dedup, sender, collector, operator, admin},
		"internal.lines":                                               {fetcher, dedup, sender, collector, operator, admin},
		"internal.metric.devo_1":                                       {sender, collector},
	}
	for _, p := range bus.Permissions() {
		var mu sync.Mutex
		var refused []string
		last := make(chan struct{})
		s := d.Settings(p.User)
		conn, err := nats.Connect(s.URL, nats.UserInfo(s.User, s.Password.Reveal()), nats.RootCAs(s.CA), nats.CustomInboxPrefix(bus.InboxPrefix(p.User)),
			nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
				mu.Lock()
				defer mu.Unlock()
				refused = append(refused, err.Error())
				if strings.Contains(err.Error(), `"the.last.one"`) {
					close(last)
				}
			}))
		if err != nil {
			t.Fatal(err)
		}
		for subject := range allowed {
			// Not a request that could be carried out: what counts is that it got through.
			if err := conn.Publish(subject, []byte("{")); err != nil {
				t.Fatal(err)
			}
		}
		foreign := []string{">", "alerts.>", "$JS.>", "$KV.hashes.>", "_INBOX.>"}
		for _, other := range bus.Permissions() {
			if other.User != p.User {
				foreign = append(foreign, bus.InboxPrefix(other.User)+".>")
			}
		}
		for _, subject := range append(foreign, bus.InboxPrefix(p.User)+".x.*") {
			if _, err := conn.SubscribeSync(subject); err != nil {
				t.Fatal(err)
			}
		}
		if err := conn.Publish("the.last.one", nil); err != nil {
			t.Fatal(err)
		}
		select {
		case <-last:
		case <-time.After(time.Minute):
			t.Fatal("the server does not refuse")
		}
		conn.Close()
		mu.Lock()
		text := strings.Join(refused, "\n")
		mu.Unlock()
		for subject, users := range allowed {
			if got, want := !strings.Contains(text, `Publish to "`+subject+`"`), slices.Contains(users, p.User); got != want {
				t.Errorf("%s may publish to %s: %v, want %v", p.User, subject, got, want)
			}
		}
		for _, subject := range foreign {
			if !strings.Contains(text, `Subscription to "`+subject+`"`) {
				t.Errorf("%s may subscribe to %s", p.User, subject)
			}
		}
		if strings.Contains(text, bus.InboxPrefix(p.User)+".x.*") {
			t.Errorf("%s has no inbox: %s", p.User, text)
		}
	}
}

// A refused call says at once which user may not do what, and what to do; it does not look like a time-out.
func TestARefusedCallSaysSo(t *testing.T) {
	d := secured(t)
	ctx := bustest.Context(t)
	b := d.Connect(d.Settings(bus.UserSender))
	stored := bus.Message{Subject: proto.UniqueSubject(proto.Source{Input: "a", InputID: "1", Service: "b"}, 1, "x"), Data: []byte("x"), ExpectEmpty: true}
	four := []bus.Message{stored, stored, stored, stored}
	for name, call := range map[string]struct {
		subject string
		do      func() error
	}{
		"publish": {"alerts.unique.>", func() error { return b.PublishBatch(ctx, proto.StreamUnique, []bus.Message{stored}) }},
		"batch":   {"alerts.unique.>", func() error { return b.PublishBatch(ctx, proto.StreamUnique, four) }},
		"look up": {"$JS.API.DIRECT.GET.KV_hashes", func() error { _, err := b.Lookup(ctx, "KV_hashes", []string{"$KV.hashes.x"}); return err }},
		"purge":   {"$JS.API.STREAM.PURGE.RAW", func() error { return b.PurgeBelow(ctx, proto.StreamRaw, 1) }},
		"read key": {"$JS.API.DIRECT.GET.KV_checkpoints.$KV.checkpoints.x", func() error {
			kv, err := b.KeyValue(ctx, proto.BucketCheckpoints)
			if err != nil {
				t.Fatal(err)
			}
			_, err = kv.Get(ctx, "x")
			return err
		}},
		"write key": {"$KV.checkpoints.>", func() error {
			kv, err := b.KeyValue(ctx, proto.BucketCheckpoints)
			if err != nil {
				t.Fatal(err)
			}
			_, err = kv.Create(ctx, "x", nil)
			return err
		}},
		"pull": {"$JS.API.CONSUMER.MSG.NEXT.RAW.dedup", func() error {
			pull, err := b.Pull(ctx, proto.StreamRaw, proto.ConsumerDedup)
			if err != nil {
				t.Fatal(err)
			}
			defer pull.Close()
			_, err = pull.Next(ctx, 1, time.Minute)
			return err
		}},
		"provision": {"$JS.API.STREAM.", func() error { _, err := b.Provision(ctx, bustest.Topology("devo_1"), false); return err }},
		"any call of a command": {"$JS.API.STREAM.NAMES", func() error {
			guarded, explain := b.Guard(ctx)
			names := b.JetStream().StreamNames(guarded)
			for range names.Name() {
				t.Error("listed")
			}
			return explain(names.Err())
		}},
	} {
		err := call.do()
		if !errors.Is(err, bus.ErrRefused) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if text := err.Error(); !strings.Contains(text, `the user sender may not publish to "`+call.subject) {
			t.Errorf("%s: %s", name, text)
		}
		if hint := fault.Hint(err); !strings.Contains(hint, "collector nats-config") {
			t.Errorf("%s: hint %q", name, hint)
		}
	}
	// The connection is as good as before.
	if _, err := b.Stream(ctx, proto.StreamUnique); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// What nobody waits for is logged, once.
func TestARefusalNobodyWaitsForIsLoggedOnce(t *testing.T) {
	d := secured(t)
	log := &bustest.Log{}
	s := d.Settings(bus.UserFetcher)
	s.Logger = slog.New(slog.NewTextHandler(log, nil))
	b := d.Connect(s)
	for range 3 {
		if err := b.Conn().Publish("$JS.ACK.RAW.dedup.1.1.1.1.0", nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(bustest.Context(t)); err != nil {
		t.Fatal(err)
	}
	if text := log.String(); strings.Count(text, "the user fetcher may not publish to") != 1 || !strings.Contains(text, "hint=") {
		t.Errorf("log:\n%s", text)
	}
}

// A user whose inbox the server does not know gets no answer to anything: every call says so.
func TestAForeignInbox(t *testing.T) {
	account := server.NewAccount(bus.Account)
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir(), Accounts: []*server.Account{account},
		Users: []*server.User{{Username: "sender", Password: "x", Account: account, Permissions: &server.Permissions{
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer func() { s.Shutdown(); s.WaitForShutdown() }()
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server is not ready")
	}
	b, err := bus.Connect(bus.Settings{URL: s.ClientURL(), User: "sender", Password: secret.New("x"), Name: "x", Logger: bustest.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	ctx := bustest.Context(t)
	defer func() { _ = b.Close(ctx) }()
	for range 2 { // the server tells it once only
		if _, err := b.Stream(ctx, proto.StreamUnique); !errors.Is(err, bus.ErrRefused) || !strings.Contains(err.Error(), "may not subscribe to") {
			t.Errorf("got %v", err)
		}
	}
}

// Who cannot connect says why, and goes on trying.
func TestWhyThereIsNoConnection(t *testing.T) {
	d := secured(t)
	for name, tc := range map[string]struct {
		change     func(*bus.Settings)
		text, hint string
	}{
		"another authority": {func(s *bus.Settings) { s.CA = d.OtherCA }, "certificate signed by unknown authority", "bus.tls.ca"},
		"no authority":      {func(s *bus.Settings) { s.CA = "" }, "certificate signed by unknown authority", "bus.tls.ca"},
		"wrong password":    {func(s *bus.Settings) { s.Password = d.Password(bus.UserAdmin) }, "with this password", "bus.user and bus.password"},
	} {
		t.Run(name, func(t *testing.T) {
			log := &bustest.Log{}
			s := d.Settings(bus.UserSender)
			s.Logger = slog.New(slog.NewTextHandler(log, nil))
			tc.change(&s)
			b := d.Connect(s)
			ctx, cancel := context.WithTimeout(bustest.Context(t), 20*time.Second)
			defer cancel()
			for b.Connected() == nil || !strings.Contains(b.Connected().Error(), tc.text) || !strings.Contains(log.String(), tc.text) {
				if ctx.Err() != nil {
					t.Fatalf("connection: %v; log:\n%s", b.Connected(), log.String())
				}
				time.Sleep(20 * time.Millisecond)
			}
			if hint := fault.Hint(b.Connected()); !strings.Contains(hint, tc.hint) {
				t.Errorf("hint %q", hint)
			}
			if strings.Contains(log.String(), "password of") {
				t.Errorf("the password is in the log:\n%s", log.String())
			}
		})
	}
}

// A user's rights are compared with what this version needs; a server without users restricts nobody.
func TestRights(t *testing.T) {
	d := secured(t)
	for _, p := range bus.Permissions() {
		b := d.Connect(d.Settings(p.User))
		ctx := bustest.Context(t)
		for b.Connected() != nil && ctx.Err() == nil { // the server takes its time over a password
			time.Sleep(20 * time.Millisecond)
		}
		user, restricted, err := b.Rights(ctx)
		if err != nil || user != p.User || !restricted {
			t.Errorf("%s: %q, %v, %v", p.User, user, restricted, err)
		}
	}
	open := bustest.Deploy(t, "nats-server.conf", 1)
	if _, restricted, err := open.Connect(bus.Settings{URL: open.URL, Name: "x", Logger: bustest.Logger()}).Rights(bustest.Context(t)); err != nil || restricted {
		t.Errorf("open server: %v, %v", restricted, err)
	}
}

// What an older users.conf does not have is named.
func TestRightsOfAnOlderConfiguration(t *testing.T) {
	account := server.NewAccount(bus.Account)
	allowed := []string{"$SYS.REQ.USER.INFO", "$JS.API.STREAM.*.>", "$JS.API.CONSUMER.>", "$JS.API.DIRECT.>", "$JS.ACK.>", "internal.>", "alerts.dead.>", "$KV.ledgers.>", "$KV.jobs.*"}
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir(), Accounts: []*server.Account{account},
		Users: []*server.User{{Username: "sender", Password: "x", Account: account, Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: allowed},
			Subscribe: &server.SubjectPermission{Allow: []string{bus.InboxPrefix("sender") + ".>"}},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer func() { s.Shutdown(); s.WaitForShutdown() }()
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server is not ready")
	}
	b, err := bus.Connect(bus.Settings{URL: s.ClientURL(), User: "sender", Password: secret.New("x"), Name: "x", Logger: bustest.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	ctx := bustest.Context(t)
	defer func() { _ = b.Close(ctx) }()
	// $KV.jobs.> is more than $KV.jobs.*, and nothing covers $KV.status.sender.>.
	_, _, err = b.Rights(ctx)
	if !errors.Is(err, bus.ErrRefused) || !strings.Contains(err.Error(), `"$KV.jobs.>", nor to 1 more`) || !strings.Contains(fault.Hint(err), "users.conf") {
		t.Errorf("got %v", err)
	}
}

package collector_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"defenderiot/pkg/bus"
	"defenderiot/pkg/bus/bustest"
	"defenderiot/proto"
)

// cluster is three nodes with the services on them; every stream has three copies.
func cluster(t *testing.T, file string) *deployment {
	t.Helper()
	d := deploy(t, file, 3, 20)
	d.until("a leader of the cluster", func() bool { return d.leader("") >= 0 })
	d.must(bus.UserAdmin, "provision")
	for _, name := range []string{"fetcher", "dedup", "sender"} {
		d.program(name, name)
	}
	d.delivered(50)
	return d
}

// leader is the node that leads a stream, or the cluster with "", and -1 if there is none.
func (d *deployment) leader(stream string) int {
	for i := range 3 {
		s := d.servers.Server(i)
		if s == nil {
			continue
		}
		if stream == "" && s.JetStreamIsLeader() || stream != "" && s.JetStreamIsStreamLeader(bus.Account, stream) {
			return i
		}
	}
	return -1
}

// current waits until every node has all copies again.
func (d *deployment) current() {
	d.t.Helper()
	d.until("all copies to be current", func() bool {
		for i := range 3 {
			if s := d.servers.Server(i); s == nil || s.Healthz(nil).StatusCode != 200 {
				return false
			}
		}
		return true
	})
}

// On three nodes nothing is lost when one of them goes, whichever it is, nor when two do; then everything waits.
func TestThreeNodes(t *testing.T) {
	d := cluster(t, "cluster.conf")
	for i := range 3 {
		d.servers.Stop(i)
		t.Logf("without node %d the next alert took %s", i, d.delivered(10))
		d.servers.Start(i)
		d.current()
	}
	for _, stream := range []string{proto.StreamRaw, proto.StreamUnique, proto.BucketStream(proto.BucketLedgers), ""} {
		i := d.leader(stream)
		if i < 0 {
			d.until("a leader of "+stream, func() bool { i = d.leader(stream); return i >= 0 })
		}
		d.servers.Stop(i)
		t.Logf("without the leader of %q the next alerts took %s", stream, d.delivered(10))
		d.servers.Start(i)
		d.current()
	}
	// With one of three, nothing can be stored. Nothing goes away either.
	d.servers.Stop(0)
	d.servers.Stop(1)
	time.Sleep(3 * time.Second)
	d.servers.Start(0)
	t.Logf("after two nodes were away the next alerts took %s", d.delivered(10))
	d.servers.Start(1)
	d.current()
	d.settled()
	d.until("all to be confirmed", func() bool {
		s, err := d.tryStatus(bus.UserOperator)
		return err == nil && s.Outputs["devo_1"].Pending == 0 && s.Events.Waiting == 0
	})
	s := d.status(bus.UserOperator)
	if repeats := uint64(d.Stats().Devo.Duplicates); repeats > s.Outputs["devo_1"].Resent {
		t.Errorf("%d events came twice, %d counted as possibly resent", repeats, s.Outputs["devo_1"].Resent)
	}
}

// The same with users and TLS, also between the nodes.
func TestThreeNodesWithUsers(t *testing.T) {
	d := cluster(t, "cluster-secure.conf")
	d.servers.Stop(d.leader(proto.StreamUnique))
	d.delivered(10)
	d.settled()
	if got := d.servers.Violations(); len(got) > 0 {
		t.Errorf("refused: %v", got)
	}
}

// From one node to three and back: provision with another bus.replicas, while everything runs.
func TestFromOneNodeToThreeAndBack(t *testing.T) {
	d := deploy(t, "cluster.conf", 3, 20)
	d.until("a leader of the cluster", func() bool { return d.leader("") >= 0 })
	d.replicas = 1
	d.must(bus.UserAdmin, "provision")
	for _, name := range []string{"fetcher", "dedup", "sender"} {
		d.program(name, name)
	}
	d.delivered(50)
	for _, replicas := range []int{3, 1} {
		d.replicas = replicas
		d.must(bus.UserAdmin, "provision")
		d.until(fmt.Sprintf("%d copies of everything", replicas), func() bool { return d.copies() == replicas })
		d.delivered(20)
	}
	d.settled()
}

// copies is how many current copies each stream, bucket and consumer has; 0 if they differ or one is behind.
func (d *deployment) copies() int {
	b := d.servers.Connect(d.servers.Settings(""))
	ctx := bustest.Context(d.t)
	defer func() { _ = b.Close(ctx) }()
	all := 0
	list := b.JetStream().ListStreams(ctx)
	for info := range list.Info() {
		n := 1
		if info.Cluster == nil || info.Cluster.Leader == "" {
			return 0
		}
		for _, r := range info.Cluster.Replicas {
			if !r.Current || r.Offline {
				return 0
			}
			n++
		}
		if all != 0 && n != all {
			return 0
		}
		all = n
	}
	if list.Err() != nil {
		return 0
	}
	return all
}

// From the embedded server to a nats-server: the folder of the account is copied, and everything goes on where it was.
func TestFromTheEmbeddedServerToANatsServer(t *testing.T) {
	d := deploy(t, "nats-server.conf", 1, 20)
	d.servers.Stop(0)
	d.t.Setenv("BUS_URL", "")
	stop := d.start("collector")
	d.delivered(60)
	stop()
	before := d.Stats().Devo
	if err := os.CopyFS(filepath.Join(d.servers.StoreDir(0), "jetstream"), os.DirFS(filepath.Join(d.dir, "state", "bus", "jetstream"))); err != nil {
		t.Fatal(err)
	}
	d.servers.Start(0)
	d.must(bus.UserAdmin, "provision")
	if s := d.status(bus.UserOperator); s.Events.Received < uint64(before.Unique) || s.Checkpoint == nil {
		t.Fatalf("the server holds %+v, %d alerts had arrived", s, before.Unique)
	}
	for _, name := range []string{"fetcher", "dedup", "sender"} {
		d.program(name, name)
	}
	d.delivered(40)
	d.settled()
	if repeats := d.Stats().Devo.Duplicates; repeats > before.Duplicates {
		t.Errorf("%d events came again", repeats-before.Duplicates)
	}
}

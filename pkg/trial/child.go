package trial

import (
	"bufio"
	"encoding/binary"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const (
	// variable makes the program a child and names its work.
	variable = "COLLECTOR_TRIAL"
	// hello is the child's first answer: whatever else the program prints, it is no child.
	hello = "trial 1\n"
	// done is the answer to a message.
	done = 0x06
	// maxMessage bounds a message; it is more than the bus takes.
	maxMessage = 64 << 20
	// heapAim is what the child's collector aims at. The system lets the child have at most maxData, in which the
	// largest message unpacked, framed and packed fits several times, and not more than is left where it runs, but
	// minData in any case: with less the runtime itself does not start.
	heapAim = 256 << 20
	maxData = 768 << 20
	minData = 192 << 20
	// maxStack bounds a stack, in the service as in its child: far more than any of their work needs, and little
	// enough that a stack without end does not take the machine's memory first (the runtime's own limit is 1 GB).
	maxStack = 64 << 20
)

// Work does with one message what may take a process down. Its result does not matter, nor does a panic: the
// caller recovers those itself. option is what the caller gave to [Trial.Try].
type Work func(option byte, message []byte)

var (
	mu    sync.Mutex
	works map[string]Work
)

// Enter makes the children of this program possible, and is to be called first thing in main. In a child it never
// returns. Without it a [Trial] tries nothing, so that a program which does not know about children, such as a
// test, is never started as one.
func Enter(of map[string]Work) {
	mu.Lock()
	works = of
	mu.Unlock()
	debug.SetMaxStack(maxStack)
	order, isChild := os.LookupEnv(variable)
	if !isChild {
		return
	}
	name, limit, _ := strings.Cut(order, ":")
	work, known := of[name]
	data, err := strconv.ParseUint(limit, 10, 64)
	if !known || err != nil {
		os.Exit(1)
	}
	// A stop meant for the service must not look like a crash; the child ends with its input.
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	debug.SetMemoryLimit(int64(min(heapAim, data/2)))
	bound(data)
	answers := os.Stdout
	os.Stdout = os.Stderr // whatever prints must not be taken for an answer
	if err := serve(work, os.Stdin, answers); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

func workOf(name string) Work {
	mu.Lock()
	defer mu.Unlock()
	return works[name]
}

// serve answers each message after its work is done, in order, until the input ends.
func serve(work Work, in io.Reader, out io.Writer) error {
	if _, err := io.WriteString(out, hello); err != nil {
		return err
	}
	reader := bufio.NewReaderSize(in, 64<<10)
	var head [5]byte
	var message []byte
	for {
		if _, err := io.ReadFull(reader, head[:]); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		size := int(binary.BigEndian.Uint32(head[1:]))
		if size > maxMessage {
			return io.ErrUnexpectedEOF
		}
		if cap(message) < size {
			message = make([]byte, size)
		}
		message = message[:size]
		if _, err := io.ReadFull(reader, message); err != nil {
			return err
		}
		attempt(work, head[0], message)
		if _, err := out.Write([]byte{done}); err != nil {
			return err
		}
		if cap(message) > 1<<20 {
			message = nil // a large one's room is not kept
		}
	}
}

func attempt(work Work, option byte, message []byte) {
	defer func() { _ = recover() }()
	work(option, message)
}

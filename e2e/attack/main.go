// Command attack tries what strangers can do to a director, one thing after the other and then all of it at once, while honest
// clients use it; and says whether these were served as if nothing had happened. It runs real processes, on loopback only:
// the attacker has one address, each honest client another one. It is bounded in time and in what it opens.
//
// The director has its usual configuration, but for bounds that would take a minute each to reach: see settings.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/connswap/connswap/e2e/internal/cluster"
)

// Bounds of the director and its workers that the attacks are about.
const (
	maxConnections = 1000
	workerCapacity = 256
	descriptors    = 128
	memoryLimit    = 384 << 20
)

var settings = []string{
	fmt.Sprint("CONNECTION_SWAP_DIRECTOR_MAX_CONNECTIONS=", maxConnections),
	fmt.Sprint("CONNECTION_SWAP_WORKER_CAPACITY=", workerCapacity),
	fmt.Sprint("GOMEMLIMIT=", memoryLimit),
	"CONNECTION_SWAP_WORKER_TOKEN_INTERVAL=20ms",
}

func main() {
	bin := flag.String("bin", "bin", "directory with the binaries director and worker")
	last := flag.Duration("each", 4*time.Second, "how long each attack lasts")
	only := flag.String("only", "", "attacks to try, of "+strings.Join(names(), ", ")+"; empty for all")
	strict := flag.Bool("strict", true, "exit 1 where an honest client was harmed")
	attacker := flag.String("attack", "", "only be the attacker (used by the program itself)")
	target := flag.String("target", "", "of -attack")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var ok bool
	var err error
	if *attacker != "" {
		ok, err = true, attack(ctx, *attacker, strings.Split(*target, ","))
	} else {
		ok, err = run(ctx, *bin, *last, strings.FieldsFunc(*only, func(r rune) bool { return r == ',' }))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "attack:", err)
	}
	if err != nil || *strict && !ok {
		os.Exit(1)
	}
}

// run reports whether honest clients were served well under each attack.
func run(ctx context.Context, bin string, last time.Duration, only []string) (ok bool, err error) {
	c, err := start(bin)
	if err != nil {
		return false, err
	}
	defer c.Stop()
	for _, name := range []string{"a", "b"} {
		if err := c.Work(ctx, name); err != nil {
			return false, err
		}
	}
	fmt.Println(heading)
	ok = true
	for _, name := range append([]string{nobody}, append(names(), everybody)...) {
		if len(only) > 0 && !strings.Contains(","+strings.Join(only, ",")+",", ","+name+",") {
			continue
		}
		o, err := suffer(ctx, c, name, last)
		if err != nil {
			return false, fmt.Errorf("%s: %w\n%s", name, err, c.Logs())
		}
		fmt.Println(o)
		if name == nobody && len(o.harm()) > 0 {
			fmt.Println("nobody attacks yet: this machine is too busy with something else for a verdict on what follows")
		}
		ok = ok && len(o.harm()) == 0
	}
	return ok, nil
}

// start starts a director that may have few descriptors: a process inherits what its parent may have.
func start(bin string) (*cluster.Cluster, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	few := syscall.Rlimit{Cur: descriptors, Max: limit.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		return nil, err
	}
	c, err := cluster.Start(bin, 2, settings...)
	many := syscall.Rlimit{Cur: limit.Max, Max: limit.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &many); err != nil {
		return nil, err
	}
	return c, err
}

// What is tried besides the attacks themselves.
const (
	nobody    = "nothing"
	everybody = "all"
)

// suffer has honest clients work for a time, under an attack.
func suffer(ctx context.Context, c *cluster.Cluster, name string, last time.Duration) (outcome, error) {
	stop := func() error { return nil }
	if name != nobody {
		var err error
		if stop, err = launch(ctx, c, name); err != nil {
			return outcome{}, err
		}
	}
	time.Sleep(last / 3) // the attack has to get what it is about first
	h := &honest{cluster: c}
	o, err := h.work(ctx, name, last)
	if stopErr := stop(); err == nil {
		err = stopErr
	}
	time.Sleep(time.Second) // what it had is given back
	return o, err
}

// launch starts the attacker as a process of its own, which has less of the processor than the others: on a network it would
// have none.
func launch(ctx context.Context, c *cluster.Cluster, name string) (stop func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(c.Dir, "attack-"+name+".log"))
	if err != nil {
		return nil, err
	}
	target := strings.Join([]string{cluster.Addr(c.Ports[0]), cluster.Addr(c.Ports[1]), filepath.Join(c.Dir, "certs")}, ",")
	cmd := exec.CommandContext(ctx, self, "-attack", name, "-target", target)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	_ = unix.Setpriority(unix.PRIO_PROCESS, cmd.Process.Pid, 10)
	return func() error {
		defer log.Close() //nolint:errcheck // nobody reads it but people
		return cluster.Kill(cmd)
	}, nil
}

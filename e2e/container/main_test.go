package container

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
)

// The images under test.
const (
	directorImage = "connswap/director:dev"
	workerImage   = "connswap/worker:dev"
	clientImage   = "connswap/client:dev"

	// Builds that claim another version of the protocol, otherVersion.
	otherDirector = "connswap/director:other"
	otherWorker   = "connswap/worker:other"
)

// docker is the daemon.
var docker *testcontainers.DockerClient

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx := context.Background()
	if err := prepare(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() { // until the process ends
		<-interrupted
		clean(ctx)
		os.Exit(130)
	}()
	return max(m.Run(), clean(ctx))
}

// clean removes what the tests started, and returns an exit code.
func clean(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := sweep(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: removing what the tests started:", err)
		return 1
	}
	return 0
}

// prepare looks for what the tests need, and removes what a run that was cut short has left behind.
func prepare(ctx context.Context) (err error) {
	// The reaper is an image of its own, from a registry. sweep does its work.
	if err := os.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true"); err != nil {
		return err
	}
	log.SetDefault(log.NewNoopLogger())
	if docker, err = testcontainers.NewDockerClientWithOpts(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err := docker.Ping(ctx, client.PingOptions{}); err != nil {
		return fmt.Errorf("these tests need a Docker daemon: %w", err)
	}
	var errs []error
	for _, image := range []string{directorImage, workerImage, clientImage, otherDirector, otherWorker} {
		if _, err := docker.ImageInspect(ctx, image); err != nil {
			errs = append(errs, fmt.Errorf("%w; make it with: make images", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := alone(); err != nil {
		return err
	}
	return sweep(ctx)
}

// lock is held as long as the process lives.
var lock *os.File

// alone waits until no other run of these tests is under way for this user: sweeping would take its containers.
func alone() (err error) {
	name := filepath.Join(os.TempDir(), fmt.Sprintf("connswap-e2e-%d.lock", os.Getuid()))
	if lock, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		return nil
	}
	fmt.Fprintln(os.Stderr, "e2e: waiting for another run of these tests to end")
	return syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
}

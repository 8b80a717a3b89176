package inference

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// keeper is a process that outlives the tests, even if they are killed, and then ends what they have started and removes what they have made.
type keeper struct {
	cmd   *exec.Cmd
	lines io.WriteCloser // its end is that of the tests
}

// keeps is the variable that makes a test binary a keeper, and leaves the one that makes it start a server and die.
const keeps, leaves = "CONNSWAP_TEST_KEEPS", "CONNSWAP_TEST_LEAVES"

var kept keeper

func startKeeper() (k keeper, err error) {
	k.cmd = exec.Command(os.Args[0])
	k.cmd.Env = append(os.Environ(), keeps+"=1")
	k.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it stays when the tests' group is interrupted
	if k.lines, err = k.cmd.StdinPipe(); err != nil {
		return k, err
	}
	return k, k.cmd.Start()
}

// add has a process ended; or those of a group, as its negative number, as kill(2) has it.
func (k keeper) add(pid int) { k.say("add", strconv.Itoa(pid)) }

// forget is for what has ended.
func (k keeper) forget(pid int) { k.say("forget", strconv.Itoa(pid)) }

// remove has a directory removed.
func (k keeper) remove(dir string) { k.say("remove", dir) }

// say writes short lines, which a pipe takes as a whole. A keeper that is gone keeps nothing.
func (k keeper) say(what, which string) { _, _ = fmt.Fprintf(k.lines, "%s %s\n", what, which) }

// stop waits until all has been ended and removed.
func (k keeper) stop() error {
	_ = k.lines.Close()
	return k.cmd.Wait()
}

// keep is what a keeper does.
func keep(lines io.Reader) {
	pids, dirs := map[int]bool{}, []string{}
	for in := bufio.NewScanner(lines); in.Scan(); {
		what, which, _ := strings.Cut(in.Text(), " ")
		pid, _ := strconv.Atoi(which) // where it is one
		switch what {
		case "add":
			pids[pid] = true
		case "forget":
			delete(pids, pid)
		case "remove":
			dirs = append(dirs, which)
		}
	}
	for pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	}
	for _, dir := range dirs {
		_ = os.RemoveAll(dir)
	}
}

// TestNothingIsLeft has tests be killed while a system of theirs runs: director, worker, server and runner are ended, and what they made is
// removed.
func TestNothingIsLeft(t *testing.T) {
	if os.Getenv(leaves) != "" {
		s := startSystem(t, []*server{startServer(t)}, "words") // whose model has been tried, by a runner
		models, err := store()
		require.NoError(t, err)
		fmt.Printf("left %d %d %d %s %s\n", s.servers["a"].cmd.Process.Pid, s.Director.Process.Pid, s.Workers["a"].Process.Pid, models, s.Dir)
		require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGKILL))
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestNothingIsLeft$")
	cmd.Env = append(os.Environ(), leaves+"=1")
	out, err := cmd.Output()
	require.ErrorContains(t, err, "killed")
	var group, director, worker int
	var models, dir string
	_, err = fmt.Sscanf(string(out), "left %d %d %d %s %s", &group, &director, &worker, &models, &dir)
	require.NoError(t, err, "%s", out)
	left := func() (all []string) {
		for _, pid := range []int{-group, director, worker} {
			if syscall.Kill(pid, 0) == nil {
				all = append(all, strconv.Itoa(pid))
			}
		}
		for _, dir := range []string{models, dir} {
			if _, err := os.Stat(dir); err == nil {
				all = append(all, dir)
			}
		}
		return all
	}
	require.Eventually(t, func() bool { return len(left()) == 0 }, 10*time.Second, 20*time.Millisecond, "left are %q", left())
}

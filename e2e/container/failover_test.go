package container

import (
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
)

// What the images write when nothing goes wrong is what the engine of this source tree gives, and they call themselves
// healthy.
func TestNoFault(t *testing.T) {
	t.Parallel()
	c := up(t, setup{health: true})
	cl := c.generate(t, request{prompt: "The river", tokens: 60, seed: 1})
	if events := c.survives(t, cl); len(events.of("swapped")) != 0 {
		t.Errorf("swaps: %+v", events.of("swapped"))
	}
	for _, n := range []*node{c.director, c.workers["worker-a"], c.workers["worker-b"]} {
		eventually(t, n.name+" is healthy", func() (bool, error) {
			health := n.inspect(t).State.Health
			return health != nil && health.Status == container.Healthy, nil
		})
	}
}

func TestModeError(t *testing.T) {
	t.Parallel()
	c := up(t, setup{workers: env{
		"WORKER_FAILURE_MODE": "error", "WORKER_FAILURE_MIN": "1s", "WORKER_FAILURE_MAX": "2500ms", "WORKER_RECOVERY": "500ms",
	}})
	events := c.survives(t, c.generate(t, story))
	if len(events.of("swapped")) < 2 {
		t.Errorf("%d swaps in a stream of ten seconds", len(events.of("swapped")))
	}
	for _, e := range events.of("swapped") {
		if e.Cause != reported {
			t.Errorf("cause %q: %+v", e.Cause, e)
		}
	}
}

func TestKill(t *testing.T) {
	t.Parallel()
	c := up(t, setup{})
	cl := c.generate(t, story)
	victim := cl.reads(t, 10)
	c.workers[victim].signal(t, "KILL")
	if err := removeContainer(t.Context(), c.workers[victim].id); err != nil {
		t.Fatal(err)
	}
	cl.swapped(t, 1)
	c.workerIs(t, victim, "is gone", func(w workerStatusLine) bool { return !w.Connected })
	once(t, c.survives(t, cl), victim, tether, refused)
}

// Failure mode exit is SIGKILL, from the process to itself. The first process of a container cannot be killed that way,
// but ends all the same; below an init process it is the kernel that ends it.
func TestKilledProcessIsRestarted(t *testing.T) {
	for name, init := range map[string]bool{"first process": false, "below init": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := up(t, setup{
				workers: env{"WORKER_FAILURE_MODE": "exit", "WORKER_FAILURE_MIN": "3s", "WORKER_FAILURE_MAX": "6s"},
				host: func(host *container.HostConfig) {
					host.RestartPolicy = container.RestartPolicy{Name: container.RestartPolicyAlways}
					host.Init = &init
				},
			})
			events := c.survives(t, c.generate(t, story))
			if len(events.of("swapped")) == 0 {
				t.Error("no swap")
			}
			for _, e := range events.of("swapped") {
				if e.Cause != tether && e.Cause != refused {
					t.Errorf("cause %q: %+v", e.Cause, e)
				}
			}
			for name, n := range c.workers {
				eventually(t, name+" was restarted", func() (bool, error) { return n.inspect(t).RestartCount > 0, nil })
			}
		})
	}
}

// A paused worker knows nothing of the time it has lost. When it goes on it still has a session, which is another's by
// then; none of its tokens may arrive, and it has to find back into the pool.
func TestZombie(t *testing.T) {
	t.Parallel()
	c := up(t, setup{})
	cl := c.generate(t, story)
	zombie := cl.reads(t, 10)
	c.workers[zombie].pause(t)
	cl.swapped(t, 1)
	c.workers[zombie].unpause(t)
	eventually(t, zombie+" has dropped its session", func() (bool, error) {
		return len(c.workerStatus(t, zombie).Sessions) == 0, nil
	})
	c.serving(t, zombie)
	cl.running(t)
	c.used(t, zombie)
	once(t, c.survives(t, cl), zombie, unreachable)
}

// used waits until a worker gets a new stream: each worker gets its turn.
func (c *cluster) used(t *testing.T, worker string) {
	t.Helper()
	for range 4 {
		cl := c.generate(t, request{prompt: "Again", tokens: 5, seed: 3})
		if c.survives(t, cl).worker() == worker {
			return
		}
	}
	t.Errorf("%s gets no new streams", worker)
}

func TestCutAndHealed(t *testing.T) {
	t.Parallel()
	c := up(t, setup{})
	cl := c.generate(t, story)
	victim := cl.reads(t, 10)
	c.cut(t, c.workers[victim])
	cl.swapped(t, 1)
	c.heal(t, c.workers[victim])
	c.serving(t, victim)
	c.used(t, victim)
	once(t, c.survives(t, cl), victim, unreachable)
}

func TestBothWorkersDown(t *testing.T) {
	t.Parallel()
	c := up(t, setup{})
	cl := c.generate(t, story)
	cl.reads(t, 10)
	for _, n := range c.workers {
		n.signal(t, "KILL")
	}
	cl.until(t, "is told to wait", func(events transcript) bool { return len(events.of("waiting")) > 0 })
	for _, n := range c.workers {
		n.start(t)
	}
	if events := c.survives(t, cl); len(events.of("swapped")) == 0 {
		t.Error("the stream was never moved")
	}
}

// A fifth of all packets is lost at the director and at each worker, each way: of those between them more than a third.
func TestPacketLoss(t *testing.T) {
	t.Parallel()
	c := up(t, setup{director: env{"PACKET_LOSS": "0.2"}, workers: env{"PACKET_LOSS": "0.2"}})
	cl := c.generate(t, story)
	victim := cl.reads(t, 20)
	c.workers[victim].signal(t, "KILL")
	told := c.survives(t, cl).of("swapped") // more than one where a run of losses looks like a cut
	if !slices.ContainsFunc(told, func(e event) bool { return e.FromWorker == victim }) {
		t.Errorf("%s was killed, swaps: %+v", victim, told)
	}
}

// A director that was stopped has seen nothing for as long, and blames nobody for it.
func TestPausedDirector(t *testing.T) {
	t.Parallel()
	c := up(t, setup{})
	cl := c.generate(t, story)
	cl.reads(t, 10)
	before, err := c.witness.workers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.director.pause(t)
	<-time.After(2 * time.Second)
	c.director.unpause(t)
	if events := c.survives(t, cl); len(events.of("swapped")) != 0 {
		t.Errorf("swaps: %+v", events.of("swapped"))
	}
	after, err := c.witness.workers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, w := range after {
		if !w.Connected || !w.Available || w.Instance != before[name].Instance {
			t.Errorf("worker was %+v, is %+v", before[name], w)
		}
	}
}

package container

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
)

// label is on every container and network that these tests make; Compose puts its own on what it makes.
const (
	label        = "connswap.e2e"
	composeLabel = "com.docker.compose.project"
	project      = "connswap-e2e"
)

// ours are the filters that find everything these tests start.
var ours = []client.Filters{
	make(client.Filters).Add("label", label),
	make(client.Filters).Add("label", composeLabel+"="+project),
}

// sweep removes everything these tests have started and not removed themselves.
func sweep(ctx context.Context) error {
	var errs []error
	for _, filters := range ours {
		containers, err := docker.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
		errs = append(errs, err)
		for _, c := range containers.Items {
			errs = append(errs, removeContainer(ctx, c.ID))
		}
		networks, err := docker.NetworkList(ctx, client.NetworkListOptions{Filters: filters})
		errs = append(errs, err)
		for _, n := range networks.Items {
			_, err := docker.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{})
			errs = append(errs, unlessGone(err))
		}
		volumes, err := docker.VolumeList(ctx, client.VolumeListOptions{Filters: filters})
		errs = append(errs, err)
		for _, v := range volumes.Items {
			_, err := docker.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{Force: true})
			errs = append(errs, unlessGone(err))
		}
	}
	return errors.Join(errs...)
}

// removeContainer ends a container, whatever its state, and removes it.
func removeContainer(ctx context.Context, id string) error {
	_, err := docker.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	return unlessGone(err)
}

func unlessGone(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

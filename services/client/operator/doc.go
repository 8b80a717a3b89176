// Package operator acts on a cluster: it asks a director, on its MGMT port, how things stand, and has it move
// streams from one worker to another.
//
// Every error has a *[wire.Error] in its chain, but for one: the caller's own context ended. With
// [wire.CodeLost], [wire.CodeShutdown] or the caller's own end, what was asked for may have been done in part;
// [Client.Status] tells.
package operator

package part

import (
	"context"
	"errors"
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/connswap/connswap/shared/identity"
)

// The gRPC relay: server streaming on both legs, as generated code does it, and one Send a token. A request is how many
// tokens are wanted, a token is its text.

const grpcMethod = "/relay/Generate"

var grpcStream = grpc.StreamDesc{StreamName: "Generate", ServerStreams: true}

// grpcServe serves handle, which is called with the number of tokens wanted.
func grpcServe(s Setup, role identity.Role, handle func(stream grpc.ServerStream, tokens uint32) error) (running, error) {
	src, err := s.identity(role)
	if err != nil {
		return running{}, err
	}
	l, err := net.Listen("tcp", s.Listen[0])
	if err != nil {
		return running{}, err
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(identity.ServerTLS(src, []string{"h2"}, nil))))
	method := grpcStream
	method.Handler = func(_ any, stream grpc.ServerStream) error {
		var request wrapperspb.UInt32Value
		if err := stream.RecvMsg(&request); err != nil {
			return err
		}
		return handle(stream, request.GetValue())
	}
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "relay", Streams: []grpc.StreamDesc{method}}, nil)
	return background(func() error { return server.Serve(l) }), nil
}

func grpcDial(s Setup, self, peer identity.Role) (grpcConn, error) {
	src, err := s.identity(self)
	if err != nil {
		return grpcConn{}, err
	}
	c, err := grpc.NewClient("passthrough:///"+s.Target, grpc.WithTransportCredentials(credentials.NewTLS(identity.ClientTLS(src, "h2", peer))))
	return grpcConn{c}, err
}

func grpcWorker(ctx context.Context, s Setup) (running, error) {
	steps := newSteps(ctx, s.Load.interval())
	return grpcServe(s, identity.Worker, func(stream grpc.ServerStream, tokens uint32) error {
		var token wrapperspb.BytesValue
		for made := uint32(1); made <= tokens; made++ {
			due, err := steps.wait(stream.Context())
			if err != nil {
				return err
			}
			token.Value = appendText(token.Value[:0], due, uint64(made))
			if err := stream.SendMsg(&token); err != nil {
				return err
			}
		}
		return nil
	})
}

func grpcRelay(_ context.Context, s Setup) (running, error) {
	worker, err := grpcDial(s, identity.Director, identity.Worker)
	if err != nil {
		return running{}, err
	}
	return grpcServe(s, identity.Director, func(client grpc.ServerStream, tokens uint32) error {
		in, err := worker.request(client.Context(), tokens)
		if err != nil {
			return err
		}
		return in.each(func(token *wrapperspb.BytesValue) error { return client.SendMsg(token) })
	})
}

func grpcClient(ctx context.Context, s Setup) (running, error) {
	return startClient(ctx, s.Load, func(context.Context) (conn, error) {
		return grpcDial(s, identity.Client, identity.Director)
	})
}

type grpcConn struct{ *grpc.ClientConn }

func (c grpcConn) open(ctx context.Context) (stream, error) { return c.request(ctx, streamTokens) }

func (c grpcConn) request(ctx context.Context, tokens uint32) (grpcTokens, error) {
	s, err := c.NewStream(ctx, &grpcStream, grpcMethod)
	if err != nil {
		return grpcTokens{}, err
	}
	if err := s.SendMsg(wrapperspb.UInt32(tokens)); err != nil {
		return grpcTokens{}, err
	}
	return grpcTokens{s}, s.CloseSend()
}

type grpcTokens struct{ grpc.ClientStream }

// each calls f with each token, to the end of the stream.
func (s grpcTokens) each(f func(*wrapperspb.BytesValue) error) error {
	for {
		var token wrapperspb.BytesValue
		err := s.RecvMsg(&token)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(&token); err != nil {
			return err
		}
	}
}

func (s grpcTokens) read(r *reader) error {
	return s.each(func(token *wrapperspb.BytesValue) error { return take(r, token.GetValue()) })
}

package wire

import (
	"fmt"
	"reflect"

	"google.golang.org/protobuf/proto"

	"github.com/connswap/connswap/shared/wire/wirepb"
)

// Message is a control message: one of the types of package wirepb.
type Message = proto.Message

// ErrorMessage is how an Error crosses the wire.
type ErrorMessage = wirepb.Error

// Type says what the body of a frame is.
type Type uint64

// Frame types. Numbers are never reused.
const (
	TypeError Type = 0x01
	TypeToken Type = 0x02 // flat; on the client's leg, a chunk that is one token of plain content
	TypeRich  Type = 0x03 // flat; on the client's leg, any other chunk

	TypeClientHello Type = 0x10
	TypeWelcome     Type = 0x11
	TypeGenerate    Type = 0x12
	TypeAssigned    Type = 0x13
	TypeWaiting     Type = 0x14
	TypeSwapped     Type = 0x15
	TypeDone        Type = 0x16
	TypeResume      Type = 0x17
	TypeResumed     Type = 0x18
	TypeAck         Type = 0x19
	TypeRecovering  Type = 0x1a

	TypeLinkToken    Type = 0x20 // flat; on a link's token streams, as TypeToken
	TypeLinkRich     Type = 0x2c // flat; on a link's token streams, as TypeRich
	TypeLinkHello    Type = 0x21
	TypeLinkWelcome  Type = 0x22
	TypeAttach       Type = 0x23
	TypeRefused      Type = 0x24
	TypeCredit       Type = 0x25
	TypeCancel       Type = 0x26
	TypeProgress     Type = 0x27
	TypeWorkerStatus Type = 0x28
	TypeBegin        Type = 0x29
	TypeEnd          Type = 0x2a
	TypeFail         Type = 0x2b
	TypeRevoke       Type = 0x2d
	TypeFeed         Type = 0x2e
	TypePivot        Type = 0x2f
	TypeRhythm       Type = 0x47
	TypeProgressing  Type = 0x4a

	TypeCapture  Type = 0x40
	TypeDiscard  Type = 0x41
	TypeFetch    Type = 0x42
	TypeHold     Type = 0x43
	TypePrepared Type = 0x44
	TypeCaptured Type = 0x45
	TypeHeld     Type = 0x46
	TypeAllow    Type = 0x48

	TypeDrainMark Type = 0x49

	TypeRegister      Type = 0x30
	TypeRegistered    Type = 0x31
	TypeHeartbeat     Type = 0x32
	TypeHeartbeatAck  Type = 0x33
	TypeHealthRequest Type = 0x34
	TypeHealthReply   Type = 0x35
	TypePull          Type = 0x36
	TypeSnapshot      Type = 0x37
	TypeChunk         Type = 0x38
	TypePullDone      Type = 0x39
)

var messages = map[Type]Message{
	TypeError:         (*wirepb.Error)(nil),
	TypeClientHello:   (*wirepb.ClientHello)(nil),
	TypeWelcome:       (*wirepb.Welcome)(nil),
	TypeGenerate:      (*wirepb.Generate)(nil),
	TypeAssigned:      (*wirepb.Assigned)(nil),
	TypeWaiting:       (*wirepb.Waiting)(nil),
	TypeSwapped:       (*wirepb.Swapped)(nil),
	TypeDone:          (*wirepb.Done)(nil),
	TypeResume:        (*wirepb.Resume)(nil),
	TypeResumed:       (*wirepb.Resumed)(nil),
	TypeAck:           (*wirepb.Ack)(nil),
	TypeRecovering:    (*wirepb.Recovering)(nil),
	TypeProgressing:   (*wirepb.Progressing)(nil),
	TypeLinkHello:     (*wirepb.LinkHello)(nil),
	TypeLinkWelcome:   (*wirepb.LinkWelcome)(nil),
	TypeAttach:        (*wirepb.Attach)(nil),
	TypeRefused:       (*wirepb.Refused)(nil),
	TypeCredit:        (*wirepb.Credit)(nil),
	TypeCancel:        (*wirepb.Cancel)(nil),
	TypeProgress:      (*wirepb.Progress)(nil),
	TypeWorkerStatus:  (*wirepb.WorkerStatus)(nil),
	TypeBegin:         (*wirepb.Begin)(nil),
	TypeEnd:           (*wirepb.End)(nil),
	TypeFail:          (*wirepb.Fail)(nil),
	TypeRegister:      (*wirepb.Register)(nil),
	TypeRegistered:    (*wirepb.Registered)(nil),
	TypeHeartbeat:     (*wirepb.Heartbeat)(nil),
	TypeHeartbeatAck:  (*wirepb.HeartbeatAck)(nil),
	TypeHealthRequest: (*wirepb.HealthRequest)(nil),
	TypeHealthReply:   (*wirepb.HealthReply)(nil),
	TypeAllow:         (*wirepb.Allow)(nil),
	TypeRevoke:        (*wirepb.Revoke)(nil),
	TypeFeed:          (*wirepb.Feed)(nil),
	TypePivot:         (*wirepb.Pivot)(nil),
	TypeRhythm:        (*wirepb.Rhythm)(nil),
	TypeCapture:       (*wirepb.Capture)(nil),
	TypeDiscard:       (*wirepb.Discard)(nil),
	TypeFetch:         (*wirepb.Fetch)(nil),
	TypeHold:          (*wirepb.Hold)(nil),
	TypePrepared:      (*wirepb.Prepared)(nil),
	TypeCaptured:      (*wirepb.Captured)(nil),
	TypeHeld:          (*wirepb.Held)(nil),
	TypePull:          (*wirepb.Pull)(nil),
	TypeSnapshot:      (*wirepb.Snapshot)(nil),
	TypeChunk:         (*wirepb.Chunk)(nil),
	TypePullDone:      (*wirepb.PullDone)(nil),
	TypeDrainMark:     (*wirepb.DrainMark)(nil),
}

var types = func() map[reflect.Type]Type {
	byGo := make(map[reflect.Type]Type, len(messages))
	for t, m := range messages {
		byGo[reflect.TypeOf(m)] = t
	}
	return byGo
}()

func typeOf(m Message) (Type, bool) {
	t, ok := types[reflect.TypeOf(m)]
	return t, ok
}

// newMessage returns an empty message of type t, or nil if t has none.
func newMessage(t Type) Message {
	m, ok := messages[t]
	if !ok {
		return nil
	}
	return m.ProtoReflect().Type().New().Interface()
}

// String returns the name of the type, for errors and logs.
func (t Type) String() string {
	switch t { //nolint:exhaustive // all others have a message
	case TypeToken, TypeLinkToken:
		return "Token"
	case TypeRich, TypeLinkRich:
		return "Rich"
	}
	if m, ok := messages[t]; ok {
		return string(m.ProtoReflect().Descriptor().Name())
	}
	return fmt.Sprintf("type %#x", uint64(t))
}

package loopback

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"
	"github.com/openai/openai-go/v3/responses"
	"github.com/openai/openai-go/v3/shared"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/connswap/connswap/e2e/internal/scripted"
	"github.com/connswap/connswap/services/director/director"
	"github.com/connswap/connswap/services/worker/engine"
	"github.com/connswap/connswap/services/worker/worker"
	"github.com/connswap/connswap/shared/config"
	"github.com/connswap/connswap/shared/identity"
	"github.com/connswap/connswap/shared/quicnet"
)

// scriptedCluster is a director whose workers have a scripted engine, and OpenAI's SDK that asks it.
type scriptedCluster struct {
	*testing.T
	openai.Client

	cutter   *scripted.Cutter
	sources  map[identity.Role]identity.Source
	director *director.Director
	ctx      context.Context
	running  sync.WaitGroup

	mu      sync.Mutex
	answers []answer
}

// answer is what came back for one attempt of the SDK.
type answer struct {
	status int
	header http.Header
}

// startScripted starts a director and two workers. change may be nil.
func startScripted(t *testing.T, change func(*config.Director)) *scriptedCluster {
	t.Helper()
	sources, err := identity.NewDevelopment(time.Now())
	require.NoError(t, err)
	c := &scriptedCluster{T: t, sources: sources, cutter: &scripted.Cutter{Engine: scripted.All(scripted.Shapes())}}
	cfg := config.DefaultDirector()
	cfg.ID, cfg.UserAddr, cfg.MgmtAddr = "director", "127.0.0.1:0", freeAddr(t)
	if change != nil {
		change(&cfg)
	}
	c.director, err = director.New(cfg, director.Deps{Network: quicnet.OS{}, TLS: sources[identity.Director], Log: zap.NewNop()})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(func() {
		stop()
		c.running.Wait()
	})
	c.ctx = ctx
	c.run(ctx, c.director.Run)
	c.Client = openai.NewClient(option.WithBaseURL("http://"+c.director.UserAddr().String()+"/v1"), option.WithAPIKey("any"),
		option.WithMiddleware(func(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
			response, err := next(r)
			if err == nil {
				c.mu.Lock()
				c.answers = append(c.answers, answer{response.StatusCode, response.Header})
				c.mu.Unlock()
			}
			return response, err
		}))
	return c
}

func (c *scriptedCluster) run(ctx context.Context, run func(context.Context) error) {
	c.running.Go(func() {
		if err := run(ctx); err != nil && ctx.Err() == nil {
			c.Error(err)
		}
	})
}

// work starts a worker.
func (c *scriptedCluster) work(label string) (stop func()) {
	c.Helper()
	cfg := config.DefaultWorker()
	cfg.Label, cfg.TokenInterval, cfg.UserAddr, cfg.MgmtAddr = label, 0, "127.0.0.1:0", "127.0.0.1:0"
	cfg.Directors = []string{c.director.MgmtAddr().String()}
	w, err := worker.New(cfg, worker.Deps{TLS: c.sources[identity.Worker], Log: zap.NewNop(), Engine: c.cutter})
	require.NoError(c, err)
	ctx, stop := context.WithCancel(c.ctx)
	c.run(ctx, w.Run)
	return stop
}

// last returns the last answer, and how many there were since the last time.
func (c *scriptedCluster) last() (last answer, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = len(c.answers)
	last, c.answers = c.answers[n-1], nil
	return last, n
}

// chatFor asks for a shape as a program would, in the types of the SDK.
func chatFor(shape scripted.Shape, user string) openai.ChatCompletionNewParams {
	p := openai.ChatCompletionNewParams{
		Model: "scripted", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(shape.Name)},
		User: openai.String(user), Seed: openai.Int(7),
	}
	schema := map[string]any{"type": "object"}
	switch shape.Name {
	case "stop string":
		p.Stop.OfStringArray = []string{"three", "never"}
	case "tools":
		p.Tools = []openai.ChatCompletionToolUnionParam{
			openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{Name: "weather", Parameters: schema}),
			openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{Name: "clock", Parameters: schema}),
		}
	case "custom tools":
		p.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionCustomTool(openai.ChatCompletionCustomToolCustomParam{Name: "shell"})}
	case "JSON":
		p.ResponseFormat.OfJSONSchema = &shared.ResponseFormatJSONSchemaParam{
			JSONSchema: shared.ResponseFormatJSONSchemaJSONSchemaParam{Name: "place", Strict: openai.Bool(true), Schema: schema},
		}
	case "n=2":
		p.N = openai.Int(2)
	case "logprobs":
		p.Logprobs = openai.Bool(true)
	}
	return p
}

// each calls f for each shape and each chunk at which it can be cut.
func each(t *testing.T, f func(t *testing.T, shape scripted.Shape, user string)) {
	t.Helper()
	for _, shape := range scripted.Shapes() {
		t.Run(shape.Name, func(t *testing.T) {
			for after := range shape.Cuts() + 1 {
				f(t, shape, scripted.User(t.Name(), scripted.Fail, after))
			}
		})
	}
}

// TestSDKChat: the SDK gets a chat from workers that fail at each chunk, streamed and whole, as the script has it.
func TestSDKChat(t *testing.T) {
	c := startScripted(t, nil)
	c.work("worker-a")
	c.work("worker-b")
	t.Run("streamed", func(t *testing.T) {
		each(t, func(t *testing.T, shape scripted.Shape, user string) {
			p := chatFor(shape, user)
			p.StreamOptions.IncludeUsage = openai.Bool(true)
			stream := c.Chat.Completions.NewStreaming(t.Context(), p)
			var sum openai.ChatCompletionAccumulator
			custom := ""
			for stream.Next() {
				chunk := stream.Current()
				require.True(t, sum.AddChunk(chunk), "%s: %s", user, chunk.RawJSON())
				for _, choice := range chunk.Choices {
					for _, call := range choice.Delta.ToolCalls { // the SDK has no types for those of custom tools in streams
						var raw struct{ Custom struct{ Name, Input string } }
						require.NoError(t, json.Unmarshal([]byte(call.RawJSON()), &raw))
						custom += raw.Custom.Name + raw.Custom.Input
					}
				}
			}
			require.NoError(t, stream.Err(), user)
			judgeChat(t, shape, user, &sum.ChatCompletion, custom)
		})
	})
	t.Run("whole", func(t *testing.T) {
		each(t, func(t *testing.T, shape scripted.Shape, user string) {
			got, err := c.Chat.Completions.New(t.Context(), chatFor(shape, user))
			require.NoError(t, err, user)
			custom := ""
			for _, call := range got.Choices[0].Message.ToolCalls {
				custom += call.Custom.Name + call.Custom.Input
			}
			judgeChat(t, shape, user, got, custom)
		})
	})
}

// judgeChat holds a chat against its script.
func judgeChat(t *testing.T, shape scripted.Shape, user string, got *openai.ChatCompletion, custom string) {
	t.Helper()
	finish := shape.Text.Finish
	require.Len(t, got.Choices, max(1, len(finish.Reasons)), user)
	for i, choice := range got.Choices {
		require.Equal(t, shape.Said(i, engine.Content), choice.Message.Content, user)
		require.Equal(t, shape.Said(i, engine.Refusal), choice.Message.Refusal, user)
		require.Equal(t, append(finish.Reasons, finish.Reason)[i], choice.FinishReason, user)
	}
	called := ""
	for _, call := range got.Choices[0].Message.ToolCalls {
		require.True(t, strings.HasPrefix(call.ID, "call_"), user)
		called += call.Function.Name + call.Function.Arguments
	}
	require.Equal(t, shape.Said(0, engine.ToolCall), called+custom, user)
	switch shape.Name {
	case "JSON":
		var place struct {
			City string
			Days int
		}
		require.NoError(t, json.Unmarshal([]byte(got.Choices[0].Message.Content), &place), user)
		require.Equal(t, "Zürich \"ZH\" 3", fmt.Sprint(place.City, " ", place.Days), user)
	case "logprobs":
		probs := got.Choices[0].Logprobs.Content
		require.Len(t, probs, len(shape.Text.Chunks), user)
		for i, p := range probs {
			require.Equal(t, string(shape.Text.Chunks[i].Text), p.Token, user)
		}
	case "usage":
		u := got.Usage
		require.Equal(t, finish.Usage, engine.Usage{
			Prompt: int(u.PromptTokens), Completion: int(u.CompletionTokens),
			Cached: int(u.PromptTokensDetails.CachedTokens), Reasoning: int(u.CompletionTokensDetails.ReasoningTokens),
		}, user)
		require.Equal(t, u.PromptTokens+u.CompletionTokens, u.TotalTokens, user)
	}
	require.Positive(t, got.Usage.CompletionTokens, user)
}

// TestSDKCompletions: so it does with completions.
func TestSDKCompletions(t *testing.T) {
	c := startScripted(t, nil)
	c.work("worker-a")
	c.work("worker-b")
	each(t, func(t *testing.T, shape scripted.Shape, user string) {
		finish := shape.Text.Finish
		p := openai.CompletionNewParams{
			Model: "scripted", Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String(shape.Name)}, User: openai.String(user),
			N: openai.Int(int64(max(1, len(finish.Reasons)))),
		}
		p.Stop.OfStringArray, _ = shape.Fields["stop"].([]string)
		stream := c.Completions.NewStreaming(t.Context(), p)
		texts, reasons, ids := map[int64]string{}, map[int64]string{}, map[string]bool{}
		for stream.Next() {
			chunk := stream.Current()
			ids[chunk.ID] = true
			for _, choice := range chunk.Choices {
				texts[choice.Index] += choice.Text
				reasons[choice.Index] += string(choice.FinishReason)
			}
		}
		require.NoError(t, stream.Err(), user)
		require.Len(t, ids, 1, user)
		p.User = openai.String(user + " whole")
		whole, err := c.Completions.New(t.Context(), p)
		require.NoError(t, err, user)
		for i, choice := range whole.Choices {
			require.Equal(t, shape.Said(i), choice.Text, user)
			require.Equal(t, shape.Said(i), texts[int64(i)], user)
			reason := append(finish.Reasons, finish.Reason)[i]
			require.Equal(t, [2]string{reason, reason}, [2]string{string(choice.FinishReason), reasons[int64(i)]}, user)
		}
	})
}

// responseFor asks for a shape as a response.
func responseFor(shape scripted.Shape, user string) responses.ResponseNewParams {
	p := responses.ResponseNewParams{
		Model: "scripted", Input: responses.ResponseNewParamsInputUnion{OfString: openai.String(shape.Name)}, User: openai.String(user),
	}
	switch shape.Name {
	case "tools":
		p.Tools = []responses.ToolUnionParam{responses.ToolParamOfFunction("weather", map[string]any{"type": "object"}, true)}
	case "custom tools":
		p.Tools = []responses.ToolUnionParam{responses.ToolParamOfCustom("shell")}
	case "JSON":
		p.Text.Format = responses.ResponseFormatTextConfigParamOfJSONSchema("place", map[string]any{"type": "object"})
	}
	return p
}

// TestSDKResponses: so it does with responses, whose events have numbers without a gap, and always an end.
func TestSDKResponses(t *testing.T) {
	c := startScripted(t, nil)
	c.work("worker-a")
	c.work("worker-b")
	each(t, func(t *testing.T, shape scripted.Shape, user string) {
		if len(shape.Text.Finish.Reasons) > 0 || shape.Fields["stop"] != nil { // there are no such responses
			return
		}
		stream := c.Responses.NewStreaming(t.Context(), responseFor(shape, user))
		r := readResponse(t, stream, 0)
		require.NoError(t, stream.Err(), user)
		judgeResponse(t, shape, user, r.end)
		require.Equal(t, r.text, r.end.OutputText(), user)
		require.Equal(t, shape.Said(0, engine.ToolCall), r.called, user)

		whole, err := c.Responses.New(t.Context(), responseFor(shape, user+" whole"))
		require.NoError(t, err, user)
		judgeResponse(t, shape, user, whole)
		again, err := c.Responses.Get(t.Context(), whole.ID, responses.ResponseGetParams{})
		require.NoError(t, err, user)
		require.Equal(t, whole.RawJSON(), again.RawJSON(), user)
	})
}

// responseRead is what was read of a response's events.
type responseRead struct {
	id     string
	text   string // content, in pieces
	called string // names of tools, and what they are called with, in pieces
	events int
	end    *responses.Response
}

// readResponse reads a stream whose events begin with a number.
func readResponse(t *testing.T, stream *ssestream.Stream[responses.ResponseStreamEventUnion], from int64) (r responseRead) {
	t.Helper()
	for stream.Next() {
		event := stream.Current()
		require.Equal(t, from, event.SequenceNumber)
		require.Nil(t, r.end, "%s follows the end", event.Type)
		from++
		r.take(t, event)
	}
	require.NotNil(t, r.end, "the stream has no end after %+v: %v", r, stream.Err())
	return r
}

func (r *responseRead) take(t *testing.T, event responses.ResponseStreamEventUnion) {
	t.Helper()
	r.events++
	switch e := event.AsAny().(type) {
	case responses.ResponseCreatedEvent:
		r.id = e.Response.ID
	case responses.ResponseTextDeltaEvent:
		r.text += e.Delta
	case responses.ResponseOutputItemAddedEvent:
		r.called += e.Item.Name
	case responses.ResponseFunctionCallArgumentsDeltaEvent:
		r.called += e.Delta
	case responses.ResponseCustomToolCallInputDeltaEvent:
		r.called += e.Delta
	case responses.ResponseCompletedEvent:
		r.end = &e.Response
		if r.id != "" {
			require.Equal(t, r.id, e.Response.ID)
		}
	}
}

// judgeResponse holds a response against its script.
func judgeResponse(t *testing.T, shape scripted.Shape, user string, got *responses.Response) {
	t.Helper()
	require.Equal(t, responses.ResponseStatusCompleted, got.Status, user)
	require.Equal(t, shape.Said(0, engine.Content), got.OutputText(), user)
	called, calls := "", map[string]bool{}
	for _, item := range got.Output {
		switch it := item.AsAny().(type) {
		case responses.ResponseFunctionToolCall:
			called += it.Name + it.Arguments
			calls[it.CallID] = true
		case responses.ResponseCustomToolCall:
			called += it.Name + it.Input
		}
	}
	require.Equal(t, shape.Said(0, engine.ToolCall), called, user)
	if shape.Name == "tools" {
		require.Len(t, calls, 2, user)
	}
	if shape.Name == "usage" {
		u := got.Usage
		require.Equal(t, shape.Text.Finish.Usage, engine.Usage{
			Prompt: int(u.InputTokens), Completion: int(u.OutputTokens),
			Cached: int(u.InputTokensDetails.CachedTokens), Reasoning: int(u.OutputTokensDetails.ReasoningTokens),
		}, user)
	}
}

// TestSDKResumes: a client that has lost its stream takes it up at any event, while its worker fails or later; and gives it up.
func TestSDKResumes(t *testing.T) {
	c := startScripted(t, nil)
	c.work("worker-a")
	c.work("worker-b")
	shape := scripted.Shapes()[0]
	all := readResponse(t, c.Responses.NewStreaming(t.Context(), responseFor(shape, "")), 0)
	for have := 1; have < all.events; have++ {
		user := scripted.User(fmt.Sprint("resumed after ", have), scripted.Fail, have%shape.Cuts())
		ctx, leave := context.WithCancel(t.Context())
		stream := c.Responses.NewStreaming(ctx, responseFor(shape, user))
		var before responseRead
		for range have {
			require.True(t, stream.Next(), "%s: %v", user, stream.Err())
			before.take(t, stream.Current())
		}
		leave()
		_ = stream.Close()
		rest := readResponse(t, c.Responses.GetStreaming(t.Context(), before.id, responses.ResponseGetParams{StartingAfter: openai.Int(int64(have - 1))}), int64(have))
		require.Equal(t, all.text, before.text+rest.text, user)
		require.Equal(t, all.events, before.events+rest.events, user)
		judgeResponse(t, shape, user, rest.end)
		require.Equal(t, before.id, rest.end.ID)

		require.NoError(t, c.Responses.Delete(t.Context(), before.id))
		_, err := c.Responses.Get(t.Context(), before.id, responses.ResponseGetParams{})
		requireError(t, err, http.StatusNotFound, "not_found")
	}
}

// TestSDKResumesChat: so it is with a chat, for those that ask for it.
func TestSDKResumesChat(t *testing.T) {
	c := startScripted(t, nil)
	c.work("worker-a")
	c.work("worker-b")
	shape := scripted.Shapes()[0]
	const chunks = 10 // the role, eight of text, the finish
	for have := 1; have < chunks; have++ {
		user := scripted.User(fmt.Sprint("resumed after ", have), scripted.Fail, have%shape.Cuts())
		ctx, leave := context.WithCancel(t.Context())
		stream := c.Chat.Completions.NewStreaming(ctx, chatFor(shape, user), option.WithHeader("X-Connswap-Resume", "1"))
		var sum openai.ChatCompletionAccumulator
		for range have {
			require.True(t, stream.Next(), "%s: %v", user, stream.Err())
			require.True(t, sum.AddChunk(stream.Current()), user)
		}
		leave()
		_ = stream.Close()

		var response *http.Response
		require.NoError(t, c.Get(t.Context(), "streams/"+sum.ID, nil, &response, option.WithHeader("Last-Event-ID", fmt.Sprint(have))), user)
		rest := ssestream.NewStream[openai.ChatCompletionChunk](ssestream.NewDecoder(response), nil)
		n := have
		for ; rest.Next(); n++ {
			require.True(t, sum.AddChunk(rest.Current()), user)
		}
		require.NoError(t, rest.Err(), user)
		require.Equal(t, chunks, n, user)
		require.Equal(t, shape.Said(0), sum.Choices[0].Message.Content, user)
		require.Equal(t, engine.Stop, sum.Choices[0].FinishReason, user)

		require.NoError(t, c.Delete(t.Context(), "streams/"+sum.ID, nil, nil), user)
		requireError(t, c.Get(t.Context(), "streams/"+sum.ID, nil, &response), http.StatusNotFound, "not_found")
	}
}

// requireError wants an error of the SDK's, and returns which field it is about, and its type.
func requireError(t *testing.T, err error, status int, code string) (about string) {
	t.Helper()
	var e *openai.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, fmt.Sprint(status, " ", code), fmt.Sprint(e.StatusCode, " ", e.Code), e.RawJSON())
	require.NotEmpty(t, e.Message)
	return e.Param + " " + e.Type
}

// TestSDKErrors: what is refused is an error of the SDK's, which asks again where that can help, and only there.
func TestSDKErrors(t *testing.T) {
	c := startScripted(t, func(cfg *config.Director) {
		cfg.MaxBodyBytes, cfg.WorkerWait = 8<<10, 300*time.Millisecond
	})
	stop := c.work("worker-a")
	plain := scripted.Shapes()[0]
	ask := func(change func(*openai.ChatCompletionNewParams), options ...option.RequestOption) error {
		p := chatFor(plain, "")
		change(&p)
		_, err := c.Chat.Completions.New(t.Context(), p, options...)
		return err
	}
	nothing := func(*openai.ChatCompletionNewParams) {}
	require.NoError(t, ask(nothing))
	c.last()

	about := requireError(t, ask(func(p *openai.ChatCompletionNewParams) { p.Messages = []openai.ChatCompletionMessageParamUnion{} }), http.StatusBadRequest, "")
	require.Equal(t, "messages invalid_request_error", about)
	about = requireError(t, ask(func(p *openai.ChatCompletionNewParams) { p.Model = "gpt" }), http.StatusNotFound, "model_not_found")
	require.Equal(t, "model invalid_request_error", about)
	requireError(t, ask(nothing, option.WithHeader("X-Connswap-Continuity", "some")), http.StatusBadRequest, "")
	requireError(t, ask(func(p *openai.ChatCompletionNewParams) {
		p.Messages[0] = openai.UserMessage(strings.Repeat("x", 8<<10))
	}), http.StatusRequestEntityTooLarge, "request_too_large")
	_, n := c.last()
	require.Equal(t, 4, n, "these are not worth another try")

	response, err := c.Responses.New(t.Context(), responseFor(plain, ""))
	require.NoError(t, err)
	c.last()
	ahead := c.Responses.GetStreaming(t.Context(), response.ID, responses.ResponseGetParams{StartingAfter: openai.Int(1000)})
	require.False(t, ahead.Next())
	requireError(t, ahead.Err(), http.StatusConflict, "resume_ahead")
	_, n = c.last()
	require.Equal(t, 1, n, "a conflict is tried again, but for x-should-retry")

	t.Run("no worker", func(t *testing.T) {
		stop()
		requireError(t, ask(nothing, option.WithMaxRetries(0)), http.StatusServiceUnavailable, "no_worker")
		refused, _ := c.last()
		require.Equal(t, "true", refused.header.Get("X-Should-Retry"))
		require.NotEmpty(t, refused.header.Get("Retry-After"))
		require.NoError(t, ask(nothing, option.WithMaxRetries(5), c.first(http.StatusServiceUnavailable, func() { c.work("worker-c") })))
		_, n := c.last()
		require.Greater(t, n, 1)
	})
}

// TestSDKWaitsForRoom: where there is no room for a stream the SDK is told when to come again, and comes.
func TestSDKWaitsForRoom(t *testing.T) {
	c := startScripted(t, func(cfg *config.Director) { cfg.MaxSessions = 1 })
	c.work("worker-a")
	plain := scripted.Shapes()[0]
	ask := func(option option.RequestOption) error {
		_, err := c.Chat.Completions.New(t.Context(), chatFor(plain, ""), option)
		return err
	}
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	holding := c.Chat.Completions.NewStreaming(ctx, chatFor(plain, scripted.User("holds", scripted.Park, 2)))
	require.True(t, holding.Next())
	requireError(t, ask(option.WithMaxRetries(0)), http.StatusTooManyRequests, "rate_limit_exceeded")
	refused, _ := c.last()
	require.Equal(t, "1", refused.header.Get("Retry-After"))
	require.NoError(t, ask(c.first(http.StatusTooManyRequests, leave)))
	_, n := c.last()
	require.Greater(t, n, 1)
}

// first calls f once an answer has a status.
func (c *scriptedCluster) first(status int, f func()) option.RequestOption {
	once := sync.OnceFunc(f)
	return option.WithMiddleware(func(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
		response, err := next(r)
		if err == nil && response.StatusCode == status {
			once()
		}
		return response, err
	})
}

// TestSDKSeesWhatCannotGoOn: a stream that no worker can go on with ends in an error of the SDK's, and never looks complete.
func TestSDKSeesWhatCannotGoOn(t *testing.T) {
	c := startScripted(t, func(cfg *config.Director) { cfg.WorkerWait = 300 * time.Millisecond })
	shape := scripted.Shapes()[0]
	for _, streamed := range []string{"chat", "responses"} {
		stop := c.work("worker-of-" + streamed)
		user := scripted.User(streamed, scripted.Park, 3)
		var failed error
		switch streamed {
		case "chat":
			stream := c.Chat.Completions.NewStreaming(t.Context(), chatFor(shape, user), option.WithMaxRetries(5))
			var sum openai.ChatCompletionAccumulator
			for stream.Next() {
				sum.AddChunk(stream.Current())
				if sum.Choices[0].Message.Content == "Once upon a " {
					stop()
				}
			}
			failed = stream.Err()
			require.Empty(t, sum.Choices[0].FinishReason)
		default:
			stream := c.Responses.NewStreaming(t.Context(), responseFor(shape, user), option.WithMaxRetries(5))
			text := ""
			for stream.Next() {
				switch e := stream.Current().AsAny().(type) {
				case responses.ResponseTextDeltaEvent:
					if text += e.Delta; text == "Once upon a " {
						stop()
					}
				case responses.ResponseFailedEvent:
					failed = errors.New(e.Response.Error.Message)
				case responses.ResponseCompletedEvent:
					t.Error("it looks complete")
				}
			}
			require.NoError(t, stream.Err())
		}
		require.ErrorContains(t, failed, "no_worker")
	}
}

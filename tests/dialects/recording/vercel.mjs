// The scripted calls with the Vercel AI SDK: node vercel.mjs vercel|vercel-legacy|vercel-5 MODEL_URL
// `vercel` is AI SDK 7 with @ai-sdk/otel, `vercel-legacy` the same with its older spans, `vercel-5` is AI SDK 5.
import { readFileSync } from 'node:fs';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { context, ROOT_CONTEXT, trace } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import { BatchSpanProcessor, NodeTracerProvider } from '@opentelemetry/sdk-trace-node';
import * as ai from 'ai';
import { z } from 'zod';

const [emitter, url] = process.argv.slice(2);
const provider = new NodeTracerProvider({ spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())] });
provider.register();
if (emitter !== 'vercel-5') {
  const { LegacyOpenTelemetry, OpenTelemetry } = await import('@ai-sdk/otel');
  ai.registerTelemetry(emitter === 'vercel' ? new OpenTelemetry() : new LegacyOpenTelemetry());
}

const calls = JSON.parse(readFileSync(new URL('calls.json', import.meta.url), 'utf8'));
const prompt = 'What does the model server say?';
const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey: 'none' });
const anthropic = createAnthropic({ baseURL: `${url}/v1`, apiKey: 'none' });

function settings(name) {
  const { model, usage, fail } = calls[name];
  const telemetry = emitter === 'vercel-5' ? { experimental_telemetry: { isEnabled: true } } : {};
  const chosen = name.startsWith('anthropic')
    ? anthropic(model)
    : name === 'openai.responses'
      ? openai.responses(model)
      : openai.chat(model);
  return { model: chosen, prompt, maxRetries: 0, headers: { 'x-usage': usage, ...(fail && { 'x-fail': fail }) }, ...telemetry };
}

async function call(name, make) {
  await context.with(ROOT_CONTEXT, () =>
    trace.getTracer('farebox.recording').startActiveSpan(name, async (span) => {
      try {
        await make(settings(name));
      } catch (error) {
        if (!calls[name].fail) throw error;
      } finally {
        span.end();
      }
    }),
  );
}

for (const kind of ['chat', 'cache', 'reasoning', 'error']) {
  for (const vendor of ['openai', 'anthropic']) await call(`${vendor}.${kind}`, (given) => ai.generateText(given));
}
await call('openai.responses', (given) => ai.generateText(given));
for (const name of ['openai.stream', 'anthropic.stream', 'anthropic.cache_stream']) {
  await call(name, async (given) => {
    for await (const _ of ai.streamText(given).textStream);
  });
}
await call('openai.embeddings', ({ model, prompt: value, ...rest }) => {
  const embedding = (openai.embedding ?? openai.textEmbeddingModel)(calls['openai.embeddings'].model);
  return ai.embed({ model: embedding, value, ...rest });
});
for (const name of ['openai.agent', 'anthropic.agent']) {
  const look = ai.tool({ inputSchema: z.object({}), execute: async () => 'It stands on loopback.' });
  await call(name, (given) => ai.generateText({ ...given, tools: { look }, stopWhen: ai.stepCountIs(3) }));
}
await provider.shutdown();

/**
 * JSON Schemas of configurations, for editors and for Nix.
 *
 * @module
 */

import { toJsonSchema } from "@valibot/to-json-schema";
import type { Schema } from "./schema.ts";

/** The JSON Schema of what a schema takes. What JSON Schema has no word for is left out. */
export const jsonSchemaOf = (schema: Schema<unknown>): unknown =>
  toJsonSchema(schema, { typeMode: "input", errorMode: "ignore" });

export type { AddressQuery, ConnectQuery, Decision, HelloQuery, NameQuery, PolicyHook } from "./policy-hook.js";

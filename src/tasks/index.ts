export { Classification, Classifier } from "./classify.ts";
